"""Is it better, the same or worse? Pure numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, stdev
from typing import Literal

Word = Literal["better", "same", "worse", "noisy", "missing", "new"]
GOOD, BAD, UNMEASURED = 0, 1, 125
"""Exit codes, as `git bisect run` takes them"""
SIGMAS = 3.0
"""Standard errors that a difference must exceed"""
MOST_NOISE = 0.25
"""A difference that is only seen when larger than this is not measured"""
Values = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Verdict:
    """One metric, before and now; medians of runs, larger = better."""

    metric: str
    word: Word
    before: float | None
    now: float | None
    change: float | None
    """now / before - 1"""
    allowed: float | None
    """up to which it is the same"""


def standard_error(values: Sequence[float]) -> float:
    """Of the values' middle, relative to it; 0 where a single value tells nothing of its noise."""
    if len(values) < 2:
        return 0.0
    return stdev(values) / abs(median(values)) / math.sqrt(len(values))


def compare(before: Values, now: Values, tolerance: float) -> list[Verdict]:
    """A verdict on each metric of either side.

    tolerance  relative change that is the same however little noise there is
    """
    verdicts = []
    for metric in dict.fromkeys([*before, *now]):
        old, new = before.get(metric, ()), now.get(metric, ())
        verdicts.append(_verdict(metric, old, new, tolerance))
    return verdicts


def _verdict(metric: str, old: Sequence[float], new: Sequence[float], tolerance: float) -> Verdict:
    before, now = (median(values) if values else None for values in (old, new))
    if before is None or now is None:
        return Verdict(metric, "new" if before is None else "missing", before, now, None, None)
    change = now / before - 1
    allowed = max(tolerance, SIGMAS * math.hypot(standard_error(old), standard_error(new)))
    return Verdict(metric, _word(change, allowed, tolerance), before, now, change, allowed)


def _word(change: float, allowed: float, tolerance: float) -> Word:
    if change < -allowed:
        return "worse"
    if change > allowed:
        return "better"
    return "noisy" if allowed > max(tolerance, MOST_NOISE) else "same"


def exit_code(is_coherent: bool | None, verdicts: Sequence[Verdict], *, is_whole: bool) -> int:
    """What is bad is bad, whatever else could not be measured.

    is_coherent  None = it could not be asked
    is_whole     whether every command gave its result
    """
    words = {verdict.word for verdict in verdicts}
    if is_coherent is False or "worse" in words:
        return BAD
    if is_coherent is None or not is_whole or words & {"missing", "noisy"}:
        return UNMEASURED
    return GOOD
