"""What a GPU did, span after span: who kept whom waiting, as a table and as a Chrome trace.

Kernels overlap where the next one starts before the last has ended (programmatic dependent launch).
So a span's time is not its duration: it is how far its end lies behind the latest end before it.
These times, with the gaps in them, add up to the whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from haast.bench.rooflines import Ceilings, Work

ASKED_GAPS = 8
"""Per cent of a step that its gaps may add up to"""
HEADING = (
    f"{'what':20} {'kernel':34} {'calls':>5} {'us':>8} {'own us':>8} {'MB':>8} "
    f"{'% ceiling':>9} {'gap us':>7}"
)


@dataclass(frozen=True)
class Span:
    """A kernel, a copy, or a phase of a kernel."""

    name: str
    start_us: float
    end_us: float
    work: Work | None = None
    """what it cannot avoid; None = nobody counted"""
    symbol: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    """further facts for the trace"""

    @property
    def own_us(self) -> float:
        """From its start to its end."""
        return self.end_us - self.start_us


@dataclass(frozen=True)
class Step:
    """Spans in the order of their starts, after an end from which the step's time counts."""

    begin_us: float
    spans: tuple[Span, ...]

    @property
    def us(self) -> float:
        return max(span.end_us for span in self.spans) - self.begin_us


@dataclass(frozen=True)
class Place:
    """Where a span lies among the others."""

    us: float
    """from the latest end before to its own, 0 if that one is later; holds the gap"""
    gap_us: float
    """nothing ran for so long before its start"""
    lane: int
    """the first of the rows in which the span before has ended"""


def with_phases(step: Step, symbol: str, phases: Iterable[Span]) -> Step:
    """The step with phases in place of its one kernel of that name; times from its start on.

    Raises ValueError unless there is exactly one.
    """
    found = [span for span in step.spans if span.symbol == symbol]
    if len(found) != 1:
        raise ValueError(f"a step with one {symbol} is needed; this one has {len(found)}")
    begin = found[0].start_us
    inside = [
        replace(one, start_us=begin + one.start_us, end_us=begin + one.end_us, symbol=symbol)
        for one in phases
    ]
    return in_order(step.begin_us, [*(s for s in step.spans if s is not found[0]), *inside])


def in_order(begin_us: float, spans: Iterable[Span]) -> Step:
    """A step of these spans."""
    return Step(begin_us, tuple(sorted(spans, key=lambda span: (span.start_us, span.end_us))))


def places(step: Step) -> list[Place]:
    """One for each span; their `us` add up to the step's."""
    found = []
    latest = step.begin_us
    lanes: list[float] = []
    for span in step.spans:
        free = (i for i, end in enumerate(lanes) if end <= span.start_us)
        lane = next(free, len(lanes))
        lanes[lane:] = [span.end_us, *lanes[lane + 1 :]]
        us, gap_us = max(0.0, span.end_us - latest), max(0.0, span.start_us - latest)
        found.append(Place(us, gap_us, lane))
        latest = max(latest, span.end_us)
    return found


def median_step(steps: Sequence[Step]) -> Step:
    """One that was measured: of an even number, the shorter of the two in the middle."""
    return sorted(steps, key=lambda step: step.us)[(len(steps) - 1) // 2]


def table(step: Step, ceilings: Ceilings) -> dict[str, Any]:
    """Times of a step by name and symbol, in the order of first appearance.

    step_us, gaps_us, gaps_percent; rows: name, symbol, calls, us, own_us, gap_us (sums over the
    calls), nbytes and percent_of_ceiling: None where work was not counted.
    """
    groups: dict[tuple[str, str], list[tuple[Span, Place]]] = {}
    for span, place in zip(step.spans, places(step), strict=True):
        groups.setdefault((span.name, span.symbol), []).append((span, place))
    rows = [_row(name, symbol, group, ceilings) for (name, symbol), group in groups.items()]
    gaps_us = sum(row["gap_us"] for row in rows)
    return {
        "step_us": step.us,
        "gaps_us": gaps_us,
        "gaps_percent": 100 * gaps_us / step.us,
        "rows": rows,
    }


def _row(
    name: str, symbol: str, group: list[tuple[Span, Place]], ceilings: Ceilings
) -> dict[str, Any]:
    us = sum(place.us for _, place in group)
    works = [span.work for span, _ in group if span.work is not None]
    is_counted = len(works) == len(group)
    floor_us = sum(work.floor_us(ceilings) for work in works)
    return {
        "name": name,
        "symbol": symbol,
        "calls": len(group),
        "us": us,
        "own_us": sum(span.own_us for span, _ in group),
        "gap_us": sum(place.gap_us for _, place in group),
        "nbytes": sum(work.nbytes for work in works) if is_counted else None,
        "percent_of_ceiling": 100 * floor_us / us if is_counted and us else None,
    }


def table_lines(found: Mapping[str, Any]) -> list[str]:
    """A `table` to read: heading, rows, the step's sums, and what was asked of its gaps."""
    lines = [HEADING]
    for row in found["rows"]:
        megabytes, percent = row["nbytes"], row["percent_of_ceiling"]
        lines.append(
            f"{row['name'][:20]:20} {row['symbol'][:34]:34} {row['calls']:5d} {row['us']:8.1f} "
            f"{row['own_us']:8.1f} {'-' if megabytes is None else f'{megabytes / 1e6:.2f}':>8} "
            f"{'-' if percent is None else f'{percent:.1f}':>9} {row['gap_us']:7.1f}"
        )
    lines.append(
        f"sum of gaps {found['gaps_us']:.1f} us = {found['gaps_percent']:.1f} % of the step of "
        f"{found['step_us']:.1f} us (asked <= {ASKED_GAPS} %)"
    )
    return lines


def trace_events(step: Step, process: int, title: str) -> list[dict[str, Any]]:
    """A step as events of Chrome's trace format, in microseconds from the step's begin.

    process  its number among those of the file; spans that overlap are in rows of their own
    """
    found = places(step)
    events = [_said(process, 0, "process_name", title)]
    lanes = range(1 + max(place.lane for place in found))
    events += [_said(process, lane, "thread_name", f"lane {lane}") for lane in lanes]
    for span, place in zip(step.spans, found, strict=True):
        facts = {"kernel": span.symbol, "us": round(place.us, 3), "gap_us": round(place.gap_us, 3)}
        facts |= {"nbytes": span.work.nbytes} if span.work else {}
        events.append(
            {
                "ph": "X",
                "name": span.name,
                "cat": "gpu",
                "pid": process,
                "tid": place.lane,
                "ts": round(span.start_us - step.begin_us, 3),
                "dur": round(span.own_us, 3),
                "args": facts | dict(span.details),
            }
        )
    return events


def _said(process: int, lane: int, what: str, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": lane, "args": {"name": name}}
