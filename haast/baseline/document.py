"""A baseline as one JSON document."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from haast.baseline.errors import BaselineError
from haast.baseline.known_good import COHERENCE, KNOWN_GOOD, Case, Kind
from haast.baseline.machine import Machine
from haast.baseline.metrics import Metric, metrics_of
from haast.baseline.running import Result

FOLDER = Path("bench/baselines")
"""From where `haast` is started, which is the root of a checkout"""
FORMAT = 1
PROGRAMS = ("coherence", "bench", "ops")
"""Commands that a document may have run"""


@dataclass(frozen=True)
class Measured:
    """A command and the result of each of its runs."""

    case: Case
    results: tuple[Result, ...]

    def metrics(self) -> Iterator[Metric]:
        """Of all runs; none of what has no speed. Raises UnmeasuredError as `metrics_of`."""
        if self.case.is_timed:
            for result in self.results:
                yield from metrics_of(result).values()


@dataclass(frozen=True)
class Baseline:
    """What was measured, on what, of which code."""

    name: str
    kind: Kind
    date: str
    commit: str | None
    dirty: bool
    """whether files of that commit were changed"""
    machine: Machine
    cases: tuple[Measured, ...]

    def result(self, name: str) -> Result | None:
        """Of a case that is run once."""
        return next((m.results[0] for m in self.cases if m.case.name == name and m.results), None)

    @property
    def metrics(self) -> list[Metric]:
        """Of all runs."""
        return [metric for measured in self.cases for metric in measured.metrics()]

    def why_not_here(self, machine: Machine) -> str | None:
        """Why figures of that machine cannot be held against these, or None."""
        mine, other = (m.gpu if self.kind == "gpu" else m.cpu for m in (self.machine, machine))
        if mine == other:
            return None
        here = other or "a machine without a GPU"
        return f"baseline {self.name} is of {mine}, this is {here}; save one of your own"


def path_of(name: str) -> Path:
    """bench/baselines/NAME.json, or the file itself if a path that ends in .json is given.

    Raises BaselineError for what is no name.
    """
    if name.endswith(".json"):
        return Path(name)
    if not name or Path(name).name != name or name.startswith("."):
        raise BaselineError(f"'{name}' is neither a name nor a file that ends in .json")
    return FOLDER / f"{name}.json"


def write(baseline: Baseline, path: Path) -> None:
    """A line a result, so that differences can be read."""
    head = {"format": FORMAT} | {
        field.name: getattr(baseline, field.name)
        for field in fields(Baseline)
        if field.name not in ("machine", "cases")
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    lines.append(f' "machine": {json.dumps(asdict(baseline.machine))},')
    cases = ",\n".join(map(_case_text, baseline.cases))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["{", *lines, f' "cases": [\n{cases}\n ]', "}", ""]))


def _case_text(measured: Measured) -> str:
    case = measured.case
    results = ",\n".join(f"   {json.dumps(result)}" for result in measured.results)
    return (
        f'  {{"name": {json.dumps(case.name)}, "command": {json.dumps(list(case.command))},\n'
        f'   "results": [\n{results}\n  ]}}'
    )


def read(path: Path) -> Baseline:
    """Raises BaselineError, in one line, if there is no such document or it is not whole."""
    try:
        return _parsed(json.loads(path.read_text()))
    except FileNotFoundError:
        known = ", ".join(sorted(found.stem for found in FOLDER.glob("*.json"))) or "none"
        raise BaselineError(f"there is no baseline {path}; in {FOLDER} there is {known}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaselineError(f"{path}: not a baseline ({error})") from None


def _parsed(found: dict[str, Any]) -> Baseline:
    if found["format"] != FORMAT:
        raise ValueError(f"its format is {found['format']}, known is {FORMAT}")
    if found["kind"] not in KNOWN_GOOD:
        raise ValueError(f"kind '{found['kind']}'")
    cases = tuple(
        Measured(Case(case["name"], tuple(map(str, case["command"]))), tuple(case["results"]))
        for case in found["cases"]
    )
    for measured in cases:
        if measured.case.command[:1] not in [(program,) for program in PROGRAMS]:
            raise ValueError(f"its command {measured.case.command} is none of {PROGRAMS}")
    baseline = Baseline(
        **{name: found[name] for name in ("name", "kind", "date", "commit", "dirty")},
        machine=Machine(**found["machine"]),
        cases=cases,
    )
    if baseline.result(COHERENCE) is None or not baseline.metrics:
        raise ValueError("it has no coherence or no speeds")
    return baseline
