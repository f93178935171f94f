"""A roofline as a picture, drawn by matplotlib (the extra `plot`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from haast.bench.rooflines import Ceilings
from haast.errors import HaastError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
INK = "#222222"
COLOURS = ("#0b6e4f", "#c4501b", "#3b5ba5")


@dataclass(frozen=True)
class Point:
    """One measurement."""

    flop_per_byte: float
    tflop_per_s: float
    label: str


def check_plot(path: Path, asked: str = "--plot") -> None:
    """Before anything is measured. Raises HaastError: another format, or no matplotlib.

    asked  what on the command line asks for a picture
    """
    if path.suffix not in FORMATS:
        raise HaastError(f"{path}: a picture's name must end in {', '.join(FORMATS)}")
    if find_spec("matplotlib") is None:
        raise HaastError(f"{asked} needs matplotlib; run: pip install 'haast[plot]'")


def roofline(title: str, ceilings: Ceilings, series: Mapping[str, Sequence[Point]]) -> "Figure":
    """TFLOP/s over FLOP per byte, both logarithmic, under the two measured ceilings.

    series  name -> its points; the first one's are labelled
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot(
        xscale="log", yscale="log", xlabel="FLOP per byte that must move", ylabel="TFLOP/s"
    )
    axes.set_title(title)
    axes.grid(color="#dddddd")
    _draw_roof(axes, ceilings, series)
    for index, (name, points) in enumerate(series.items()):
        across = [point.flop_per_byte for point in points]
        up = [point.tflop_per_s for point in points]
        axes.plot(across, up, "o", color=COLOURS[index % len(COLOURS)], label=name)
        for point in points if index == 0 else ():
            place = (point.flop_per_byte, point.tflop_per_s)
            axes.annotate(point.label, place, (0, 5), textcoords="offset points", ha="center")
    axes.legend(loc="lower right")
    return figure


def _draw_roof(axes: "Axes", ceilings: Ceilings, series: Mapping[str, Sequence[Point]]) -> None:
    """Memory ceiling up to the ridge, matmul ceiling from there on."""
    peak, slope = ceilings.matmul_tflop_per_s, ceilings.read_tb_per_s
    ridge = peak / slope
    across = [ridge, *(point.flop_per_byte for points in series.values() for point in points)]
    low, high = min(across) / 2, max(across) * 2
    label = f"{slope:.2f} TB/s, {peak:.0f} TFLOP/s"
    axes.plot([low, ridge, high], [low * slope, peak, peak], color=INK, label=label)
