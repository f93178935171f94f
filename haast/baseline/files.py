"""Results in files, whichever command wrote them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haast.baseline.document import read
from haast.baseline.errors import BaselineError
from haast.baseline.metrics import Metric, metrics_of
from haast.baseline.running import last_json

VOLATILE = ("date", "commit", "load_s", "kv_bytes")
"""Fields that differ from run to run, and say nothing of what was measured"""


@dataclass(frozen=True)
class Results:
    """What a file holds."""

    metrics: tuple[Metric, ...]
    setup: dict[str, Any]
    """fields of what was measured, on what"""


def read_results(path: Path) -> Results:
    """A baseline; or what a bench printed or appended to a file, of which the last line counts.

    Raises BaselineError for other files, UnmeasuredError for results without numbers.
    """
    try:
        found = last_json(path.read_text())
    except UnicodeDecodeError:
        found = None
    if found is None:
        raise BaselineError(f"{path}: neither a baseline nor a JSON result in its last line")
    if "bench" in found:
        return Results(tuple(metrics_of(found).values()), _setup(found))
    baseline = read(path)
    setup = {
        f"{measured.case.name} {key}": value
        for measured in baseline.cases
        if measured.case.is_timed
        for result in measured.results
        for key, value in _setup(result).items()
    }
    return Results(tuple(baseline.metrics), setup)


def _setup(result: dict[str, Any]) -> dict[str, Any]:
    """Whatever is one word or number, measured figures apart."""
    return {
        key: value
        for key, value in result.items()
        if key not in VOLATILE and isinstance(value, str | int | bool | None)
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`encoding: "mxfp4", then "bfloat16"` for each field that is not the same in both."""
    return [
        f"{key}: {json.dumps(before.get(key))}, then {json.dumps(now.get(key))}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]
