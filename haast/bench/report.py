"""What the benches print: the baseline's two lines, and a table a row at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

from haast.bench.plot import Point
from haast.bench.rooflines import Ceilings

DASH = "-"
COLUMNS = (
    # heading, width, format, key of the row, key inside
    ("tokens", 6, "d", "tokens", None),
    ("rows", 6, "d", "rows", None),
    ("experts", 7, "d", "active_experts", None),
    ("up us", 8, ".1f", "up", "median_us"),
    ("down us", 8, ".1f", "down", "median_us"),
    ("sum us", 8, ".1f", "sum_us", None),
    ("target", 6, "d", "target_us", None),
    ("floor", 7, ".1f", "floor_us", None),
    ("% floor", 7, ".1f", "percent_of_floor", None),
    ("TB/s", 5, ".2f", "tb_per_s", None),
    ("TFLOP/s", 7, ".1f", "tflop_per_s", None),
    ("route us", 8, ".1f", "route", "median_us"),
    ("BF16 up", 8, ".1f", "bf16_up", "median_us"),
    ("BF16 down", 9, ".1f", "bf16_down", "median_us"),
    ("BF16/ours", 9, ".2f", "bf16_ratio", None),
)
RIVAL_COLUMNS = (
    ("rival up", 8, ".1f", "rival_up", "median_us"),
    ("rival down", 10, ".1f", "rival_down", "median_us"),
    ("rival route", 11, ".1f", "rival_route", "median_us"),
)


def ceiling_line(ceilings: Ceilings) -> str:
    return (
        f"ceilings: read {ceilings.read_tb_per_s:.3f} TB/s (by {ceilings.read_by}), "
        f"copy {ceilings.copy_tb_per_s:.3f} TB/s, "
        f"bf16 matmul {ceilings.matmul_tflop_per_s:.0f} TFLOP/s"
    )


def grouped_lines(result: Mapping[str, Any]) -> list[str]:
    """The two lines that the baseline's program prints, then how good that is."""
    times = {name: result[name]["median_us"] / 1e3 for name in ("mxfp4", "bf16")}
    return [
        f"MXFP4 grouped matmul: {times['mxfp4']:.4f} ms/iter",
        f"BF16 grouped matmul: {times['bf16']:.4f} ms/iter",
        f"BF16 / MXFP4: {result['ratio']:.2f}",
        f"floor: {result['floor_us'] / 1e3:.4f} ms; MXFP4 is at "
        f"{result['percent_of_floor']:.1f} % of the ceiling",
    ]


def heading(with_rival: bool) -> str:
    return "  ".join(f"{column[0]:>{column[1]}}" for column in _columns(with_rival))


def row_line(row: Mapping[str, Any], with_rival: bool) -> str:
    """A row under `heading`; what was not measured is a dash."""
    cells = []
    for _, width, form, key, inner in _columns(with_rival):
        value = row[key]
        if value is not None and inner is not None:
            value = value[inner]
        cells.append(f"{DASH:>{width}}" if value is None else f"{value:>{width}{form}}")
    return "  ".join(cells)


def _columns(with_rival: bool) -> Sequence[tuple[str, int, str, str, str | None]]:
    return (*COLUMNS, *RIVAL_COLUMNS) if with_rival else COLUMNS


def points(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """Points of a roofline by who was measured; all at the MXFP4 layer's FLOP per byte."""
    keys = {"haast MXFP4": "sum_us", "torch BF16 grouped": "bf16_us", "triton_kernels": "rival_us"}
    found = {
        name: [
            Point(row["flop"] / row["nbytes"], row["flop"] / row[key] / 1e6, str(row["tokens"]))
            for row in rows
            if row[key] is not None
        ]
        for name, key in keys.items()
    }
    return {name: some for name, some in found.items() if some}
