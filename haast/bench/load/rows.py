"""Outcomes of a level -> its figures, and the table."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from haast.bench.load.level import Level, Outcome

SATURATED_PERCENT = 80.0
"""From here on the client may be what is slow: one process has one core"""
HEADING = (
    "                            output  time to first token ms         inter-token ms  ms a"
    "         end to end s    tokens  client\n"
    "at once  requests  errors  tokens/s     mean      p50      p99   mean    p50    p99  token"
    "    mean     p50     p99  an event   CPU %"
)


def row(level: Level) -> dict[str, Any]:
    """Figures of a level; those of times are None where no request counts.

    ttft_s        until the first event with text
    itl_s         between events with text that follow each other, all requests together
    tpot_s        from the first event to the last, over tokens - 1: one value a request
    e2e_s         until the end of the stream
    """
    good = [outcome for outcome in level.outcomes if outcome.error is None]
    errors = Counter(o.error for o in level.outcomes if o.error is not None)
    output = sum(o.usage.completion_tokens for o in good)
    events = sum(len(o.arrivals) for o in good)
    return {
        "concurrency": level.concurrency,
        "requests": len(level.outcomes),
        "errors": dict(errors),
        "wall_s": level.wall_s,
        "output_tokens": output,
        "prompt_tokens": sum(o.usage.prompt_tokens for o in good),
        "cached_tokens": sum(map(_cached, good)),
        "events": events,
        "tokens_per_event": output / events if events else None,
        "output_tokens_per_s": output / level.wall_s,
        "requests_per_s": len(good) / level.wall_s,
        "ttft_s": spread([o.arrivals[0] - o.started for o in good]),
        "itl_s": spread([gap for o in good for gap in _gaps(o)]),
        "tpot_s": spread([_tpot(o) for o in good if o.usage.completion_tokens > 1]),
        "e2e_s": spread([o.ended - o.started for o in good]),
        "client_cpu_percent": 100 * level.busy_s / level.wall_s,
    }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Mean and percentiles, interpolated; None of nothing."""
    if not values:
        return None
    cuts = statistics.quantiles([*values, *values[: len(values) == 1]], n=100, method="inclusive")
    found = {"mean": statistics.fmean(values), "max": max(values)}
    return found | {f"p{at}": cuts[at - 1] for at in (50, 90, 99)}


def _gaps(outcome: Outcome) -> list[float]:
    times = outcome.arrivals
    return [after - before for before, after in zip(times, times[1:], strict=False)]


def _tpot(outcome: Outcome) -> float:
    rest = outcome.arrivals[-1] - outcome.arrivals[0]
    return rest / (outcome.usage.completion_tokens - 1)


def _cached(outcome: Outcome) -> int:
    details = outcome.usage.prompt_tokens_details
    return (details.cached_tokens if details else None) or 0


def row_line(row: dict[str, Any]) -> str:
    """A row under HEADING; what was not measured is a dash."""
    return "".join(
        [
            f"{row['concurrency']:7d}  {row['requests']:8d}  {sum(row['errors'].values()):6d}",
            f"  {row['output_tokens_per_s']:8.0f}",
            _three(row["ttft_s"], 1e3, "9.1f"),
            _three(row["itl_s"], 1e3, "7.2f"),
            f"{1e3 * row['tpot_s']['p50']:7.2f}" if row["tpot_s"] else f"{'-':>7}",
            _three(row["e2e_s"], 1.0, "8.2f"),
            f"{row['tokens_per_event']:10.2f}" if row["events"] else f"{'-':>10}",
            f"{row['client_cpu_percent']:8.1f}",
        ]
    )


def _three(found: dict[str, float] | None, scale: float, form: str) -> str:
    width = int(form.split(".")[0])
    if found is None:
        return f"{'-':>{width}}" * 3
    return "".join(f"{scale * found[name]:{form}}" for name in ("mean", "p50", "p99"))
