"""Verdicts in words, for tables on a screen and in the journal."""

from collections.abc import Iterable, Sequence

from haast.baseline.compare import Verdict, standard_error
from haast.baseline.metrics import SHARE, Metric, values_of
from haast.baseline.running import Result

DASH = "-"
HEADINGS = ("metric", "before", "now", "change", "allowed", "verdict", "figure")
"""before and now: shares of the floor, in %; figure: what a user sees of it"""
SAVED_HEADINGS = ("metric", "of the floor", "noise", "figure")


def rows(verdicts: Sequence[Verdict], metrics: Iterable[Metric]) -> list[tuple[str, ...]]:
    """Cells under HEADINGS.

    metrics  of now; they have the units
    """
    middle = middle_of(metrics)
    return [_row(verdict, middle.get(verdict.metric)) for verdict in verdicts]


def _row(verdict: Verdict, now: Metric | None) -> tuple[str, ...]:
    unit = now.unit if now else SHARE
    return (
        verdict.metric,
        _number(verdict.before, unit),
        _number(verdict.now, unit),
        DASH if verdict.change is None else f"{100 * verdict.change:+.1f} %",
        DASH if verdict.allowed is None else f"{100 * verdict.allowed:.1f} %",
        verdict.word,
        now.figure if now else DASH,
    )


def saved_rows(metrics: Sequence[Metric]) -> list[tuple[str, ...]]:
    """Cells under SAVED_HEADINGS; noise: standard error over the runs."""
    values = values_of(metrics)
    return [
        (
            name,
            _number(found.value, found.unit),
            f"{100 * standard_error(values[name]):.1f} %",
            found.figure,
        )
        for name, found in middle_of(metrics).items()
    ]


def middle_of(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Of the runs of each metric the one with the middle value."""
    runs: dict[str, list[Metric]] = {}
    for metric in metrics:
        runs.setdefault(metric.name, []).append(metric)
    return {
        name: sorted(found, key=lambda metric: metric.value)[len(found) // 2]
        for name, found in runs.items()
    }


def _number(value: float | None, unit: str) -> str:
    return DASH if value is None else f"{value:.4g} {unit}"


def failed_checks(coherence: Result) -> list[str]:
    """`exact answers is 0.5, must be >= 0.98` for each check that failed."""
    return [
        f"{check['name']} is {check['value']}, must be "
        f"{'<=' if check['is_ceiling'] else '>='} {check['limit']}"
        for check in coherence["checks"]
        if not check["passed"]
    ]


def coherence_word(is_coherent: bool | None) -> str:
    return {True: "pass", False: "FAIL", None: "not measured"}[is_coherent]
