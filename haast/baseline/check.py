"""Runs the known-good set, and holds it against a baseline."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from haast.baseline.compare import (
    BAD,
    GOOD,
    MOST_NOISE,
    SIGMAS,
    UNMEASURED,
    Verdict,
    compare,
    exit_code,
    standard_error,
)
from haast.baseline.document import Baseline, Measured
from haast.baseline.errors import UnmeasuredError
from haast.baseline.kernels import changed_kernels, kernels_of
from haast.baseline.known_good import COHERENCE, KERNELS, Case
from haast.baseline.metrics import Metric, metrics_of, values_of
from haast.baseline.running import Result, Run

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Collected:
    """What came of the commands of a set."""

    cases: tuple[Measured, ...]
    failed: dict[Case, str]
    """commands that gave no result, and why"""

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(f"{case.name}: {why}" for case, why in self.failed.items())

    def result(self, name: str) -> Result | None:
        """Of a case that is run once."""
        return next((m.results[0] for m in self.cases if m.case.name == name), None)

    @property
    def coherence(self) -> Result | None:
        return self.result(COHERENCE)

    @property
    def metrics(self) -> list[Metric]:
        """Of all runs."""
        return [metric for measured in self.cases for metric in measured.metrics()]

    @property
    def is_coherent(self) -> bool | None:
        """None = it could not be asked."""
        return None if self.coherence is None else bool(self.coherence["passed"])


@dataclass(frozen=True)
class Outcome:
    """A check, or what was to become a baseline."""

    collected: Collected
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...]
    code: int
    """0 = nothing is worse, 1 = something is, 125 = cannot be told"""
    notes: tuple[str, ...] = ()
    """kernels that are others than they were"""


def collect(cases: Sequence[Case], repeats: int, run: Run, tell: Tell) -> Collected:
    """Run each command: those without a speed once, the others in turns, `repeats` times each.

    The speed of a model that makes no sense is not measured.
    tell  called with a line before each command
    """
    collector = _Collector(run, tell)
    collector.rounds([case for case in cases if case.name == COHERENCE], 1)
    if collector.collected.is_coherent is not False:
        collector.rounds([case for case in cases if case.is_timed], repeats)
        others = [case for case in cases if not case.is_timed and case.name != COHERENCE]
        collector.rounds(others, 1)
    return collector.collected


class _Collector:
    """Runs commands in turns; one that fails is not run again."""

    def __init__(self, run: Run, tell: Tell) -> None:
        self._run, self._tell = run, tell
        self._results: dict[Case, list[Result]] = {}
        self._failed: dict[Case, str] = {}

    def rounds(self, cases: Sequence[Case], count: int) -> None:
        for index in range(count):
            for case in cases:
                if case not in self._failed:
                    self._tell(f"{index + 1}/{count}: haast {' '.join(case.command)}")
                    self._once(case)

    def _once(self, case: Case) -> None:
        try:
            result = self._run(case)
            if case.is_timed:
                metrics_of(result)
            self._results.setdefault(case, []).append(result)
        except UnmeasuredError as error:
            self._failed[case] = str(error)
            self._results.pop(case, None)

    @property
    def collected(self) -> Collected:
        cases = tuple(Measured(case, tuple(found)) for case, found in self._results.items())
        return Collected(cases, self._failed)


def measure_new(cases: Sequence[Case], repeats: int, run: Run, tell: Tell) -> Outcome:
    """Whether what is measured may become a baseline: coherent, whole, and not too noisy."""
    collected = collect(cases, repeats, run, tell)
    collected = _again(collected, _too_noisy(collected), repeats, run, tell)
    noise = tuple(
        f"{name} differs too much from run to run to compare with: by {100 * error:.1f} %"
        for name, error in _too_noisy(collected).items()
    )
    problems = (*collected.problems, *noise)
    code = BAD if collected.is_coherent is False else UNMEASURED if problems else GOOD
    return Outcome(collected, (), problems, code)


def _too_noisy(collected: Collected) -> dict[str, float]:
    """Metrics whose runs differ so much that only large changes would show: standard errors."""
    errors = {name: standard_error(v) for name, v in values_of(collected.metrics).items()}
    return {name: error for name, error in errors.items() if SIGMAS * error > MOST_NOISE}


def check(baseline: Baseline, repeats: int, tolerance: float, run: Run, tell: Tell) -> Outcome:
    """Run the baseline's own commands and compare.

    What looks worse, or too noisy to tell, is measured once more, and the second measurement
    counts: what was a disturbance is gone by then.
    """
    collected = collect([m.case for m in baseline.cases], repeats, run, tell)
    verdicts = _verdicts(baseline, collected, tolerance)
    doubtful = [v.metric for v in verdicts if v.word in ("worse", "noisy")]
    collected = _again(collected, doubtful, repeats, run, tell)
    verdicts = _verdicts(baseline, collected, tolerance)
    problems = (*collected.problems, *_lost_checks(baseline, collected))
    code = exit_code(collected.is_coherent, verdicts, is_whole=not problems)
    kernels = (kernels_of(found.result(KERNELS)) for found in (baseline, collected))
    return Outcome(collected, tuple(verdicts), problems, code, tuple(changed_kernels(*kernels)))


def _again(
    first: Collected, doubtful: Iterable[str], repeats: int, run: Run, tell: Tell
) -> Collected:
    """With the cases of doubtful metrics as they are the second time, also where that fails."""
    names = set(doubtful)
    cases = [m.case for m in first.cases if names & {metric.name for metric in m.metrics()}]
    if not cases:
        return first
    tell(f"again, as it looks worse or noisy: {', '.join(sorted(names))}")
    second = collect(cases, repeats, run, tell)
    results = {m.case: m for m in (*first.cases, *second.cases)}
    kept = tuple(m for case, m in results.items() if case not in second.failed)
    return Collected(kept, first.failed | second.failed)


def _verdicts(baseline: Baseline, collected: Collected, tolerance: float) -> list[Verdict]:
    """None for a model that makes no sense, whose speed was not measured."""
    if collected.is_coherent is False:
        return []
    return compare(values_of(baseline.metrics), values_of(collected.metrics), tolerance)


def _lost_checks(baseline: Baseline, collected: Collected) -> list[str]:
    """Parts of the guard that the baseline passed and that were not asked now."""
    if collected.coherence is None:
        return []
    before, now = (
        {check["name"] for check in result["checks"]}
        for result in (baseline.result(COHERENCE) or {"checks": ()}, collected.coherence)
    )
    return [f"{COHERENCE}: '{name}' was not checked" for name in sorted(before - now)]
