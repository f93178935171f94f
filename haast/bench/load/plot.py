"""Speed and latency over requests at once, drawn by matplotlib (the extra `plot`)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from haast.bench.plot import COLOURS, check_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_plot", "draw"]
PERCENTILES = ("p50", "p99")


def draw(result: dict[str, Any]) -> "Figure":
    """Three panels: output tokens/s, time to first token, time between tokens."""
    from matplotlib.figure import Figure

    rows = result["rows"]
    figure = Figure(figsize=(11, 4), layout="constrained")
    figure.suptitle(
        f"{result['model']}, {result['input_len']} tokens in, {result['output_len']} out"
        + (f", {result['gpu']}" if result["gpu"] else "")
    )
    speed, first, between = figure.subplots(1, 3)
    _lines(speed, "output tokens/s", rows, {"": [r["output_tokens_per_s"] for r in rows]})
    _lines(first, "time to first token, ms", rows, _percentiles(rows, "ttft_s"))
    _lines(between, "between tokens, ms", rows, _percentiles(rows, "itl_s"))
    return figure


def _percentiles(rows: Sequence[dict[str, Any]], name: str) -> dict[str, list[float | None]]:
    return {at: [1e3 * row[name][at] if row[name] else None for row in rows] for at in PERCENTILES}


def _lines(
    axes: "Axes",
    title: str,
    rows: Sequence[dict[str, Any]],
    series: dict[str, list[float | None]],
) -> None:
    """Lines over the number of requests at once; a row without a value leaves a gap."""
    across = [row["concurrency"] for row in rows]
    for index, (name, values) in enumerate(series.items()):
        up = [float("nan") if value is None else value for value in values]
        axes.plot(across, up, "o-", color=COLOURS[index], label=name)
    axes.set_title(title)
    axes.set_xlabel("requests at once")
    axes.set_xscale("log", base=2)
    axes.set_xticks(across, [str(number) for number in across])
    axes.set_ylim(bottom=0)
    axes.grid(color="#dddddd")
    if len(series) > 1:
        axes.legend()
