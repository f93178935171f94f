"""What was measured of one GPU: a decode step by batch, a prompt by length, the ceilings."""

import json
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from operator import itemgetter
from typing import Any

Points = Sequence[tuple[float, float]]
FILE = "data/measured/curves.json"
"""Of the package; tools/make_curves.py makes it from bench/results"""


@dataclass(frozen=True)
class Curves:
    """Of gpt-oss-20b, on one card.

    gpu            as the driver calls it
    source         dates and commits of the records
    context        keys that a decoding request saw
    decode_s       (batch, seconds a step)
    prefill_s      (tokens, seconds) of a lone prompt
    token_s        a prompt token among many prompts
    read_b_per_s   memory; matmul_flop_per_s: bf16; ceilings of the same runs
    """

    gpu: str
    source: str
    context: int
    decode_s: Points
    prefill_s: Points
    token_s: float
    read_b_per_s: float
    matmul_flop_per_s: float

    @classmethod
    def of_records(cls, decode: dict[str, Any], prefill: dict[str, Any]) -> "Curves":
        """Of a line of `haast bench decode` and one of `prefill`."""
        lone = [row for row in prefill["rows"] if row["requests"] == 1]
        (many,) = (row for row in prefill["rows"] if row["requests"] > 1)
        return cls(
            gpu=decode["gpu"],
            source=f"{decode['date']}, commit {decode['commit']}",
            context=decode["rows"][0]["context"],
            decode_s=[(row["batch"], row["step_us"] / 1e6) for row in decode["rows"]],
            prefill_s=[(row["input"], row["ttft_s"]) for row in lone],
            token_s=many["ttft_s"] / (many["input"] * many["requests"]),
            read_b_per_s=decode["ceilings"]["read_tb_per_s"] * 1e12,
            matmul_flop_per_s=decode["ceilings"]["matmul_tflop_per_s"] * 1e12,
        )


def measured() -> dict[str, Any]:
    """What the package knows: `curves` by kind of card, and the `errors` of the simulator."""
    told: dict[str, Any] = json.loads((files("haast") / FILE).read_text())
    curves = {kind: Curves(**fields) for kind, fields in told["curves"].items()}
    return {"curves": curves, "errors": told["errors"]}


def interpolated(points: Points, x: float) -> float:
    """Between points on straight lines, before and behind them on the nearest one."""
    index = min(max(bisect_left(points, x, key=itemgetter(0)), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[index - 1 : index + 1]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def kind_of(gpu: str, kinds: Iterable[str]) -> str:
    """H100 of `NVIDIA H100 80GB HBM3`."""
    return next(kind for kind in kinds if kind in gpu)
