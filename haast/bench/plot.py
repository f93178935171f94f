"""A roofline as an SVG picture, drawn without a plotting library."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from haast.bench.rooflines import Ceilings

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 50, 60
COLOURS = ("#0b6e4f", "#c4501b", "#3b5ba5", "#7a3b8f")
INK, GRID = "#222222", "#dddddd"


@dataclass(frozen=True)
class Point:
    """One measurement."""

    flop_per_byte: float
    tflop_per_s: float
    label: str


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis over whole decades, from `low` to `high`, on pixels `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], begin: float, end: float) -> "_Axis":
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return cls(10.0**low, 10.0 ** max(high, low + 1), begin, end)

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.begin + share * (self.end - self.begin)

    def decades(self) -> list[float]:
        count = round(math.log10(self.high / self.low))
        return [self.low * 10.0**i for i in range(count + 1)]


def roofline(title: str, ceilings: Ceilings, series: Mapping[str, Sequence[Point]]) -> str:
    """TFLOP/s over FLOP per byte, both logarithmic, under the two measured ceilings.

    series  name -> its points; at least one point in all
    returns SVG text
    """
    points = [point for some in series.values() for point in some]
    peak, slope = ceilings.matmul_tflop_per_s, ceilings.read_tb_per_s
    x = _Axis.over([*(p.flop_per_byte for p in points), peak / slope], LEFT, WIDTH - RIGHT)
    y = _Axis.over([*(p.tflop_per_s for p in points), peak], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 28, title, "start", 15),
        *_grid(x, y),
        *_roof(x, y, peak, slope),
    ]
    for index, (name, some) in enumerate(series.items()):
        parts += _series(x, y, index, name, some)
    return "\n".join([*parts, "</svg>", ""])


def _grid(x: _Axis, y: _Axis) -> list[str]:
    parts = []
    for value in x.decades():
        at = x.at(value)
        parts.append(_line([(at, y.begin), (at, y.end)], GRID, 1))
        parts.append(_text(at, y.begin + 18, f"{value:g}"))
    for value in y.decades():
        at = y.at(value)
        parts.append(_line([(x.begin, at), (x.end, at)], GRID, 1))
        parts.append(_text(x.begin - 8, at + 4, f"{value:g}", "end"))
    middle = (x.begin + x.end) / 2
    parts.append(_text(middle, y.begin + 42, "FLOP per byte that must move (log)"))
    turn = f"rotate(-90 18 {(y.begin + y.end) / 2:.1f})"
    parts.append(f'<g transform="{turn}">{_text(18, (y.begin + y.end) / 2, "TFLOP/s (log)")}</g>')
    return parts


def _roof(x: _Axis, y: _Axis, peak: float, slope: float) -> list[str]:
    """Memory ceiling up to the ridge, matmul ceiling from there on."""
    ridge = peak / slope
    # the sloped part begins where it enters the frame, on the left or from below
    begin = max(x.low, y.low / slope)
    corners = [(begin, begin * slope), (ridge, peak), (max(x.high, ridge), peak)]
    return [
        _line([(x.at(a), y.at(b)) for a, b in corners], INK, 2),
        _text(x.end + 6, y.at(peak) + 4, f"{peak:.0f} TFLOP/s", "start"),
        _text(x.at(begin) + 8, y.at(begin * slope) - 14, f"{slope:.2f} TB/s", "start"),
    ]


def _series(x: _Axis, y: _Axis, index: int, name: str, points: Sequence[Point]) -> list[str]:
    colour = COLOURS[index % len(COLOURS)]
    legend = TOP + 60 + 22 * index
    parts = [_dot(x.end + 14, legend - 4, colour), _text(x.end + 24, legend, name, "start")]
    for point in points:
        across, up = x.at(point.flop_per_byte), y.at(point.tflop_per_s)
        parts.append(_dot(across, up, colour, f"{name}, {point.label}"))
        if index == 0:
            parts.append(_text(across, up - 8, point.label, size=9))
    return parts


def _dot(x: float, y: float, colour: str, title: str = "") -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">'
        f"<title>{escape(title)}</title></circle>"
    )


def _line(corners: Sequence[tuple[float, float]], colour: str, width: int) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{INK}">{escape(text)}</text>'
    )
