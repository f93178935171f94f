"""What was measured of one GPU: a decode step by batch, a prompt by length, the ceilings."""

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from operator import itemgetter
from typing import Any

Points = Sequence[tuple[float, float]]
REFERENCE = "gpt-oss-20b"
"""What all else is computed from"""
MODELS = (REFERENCE, "gpt-oss-120b")
FILE = "data/measured/curves.json"
"""Of the package; tools/make_curves.py makes it from bench/results"""


@dataclass(frozen=True)
class Curves:
    """Of one model on one card.

    model          gpt-oss-20b or gpt-oss-120b
    gpu            as the driver calls it
    source         dates and commits of the records
    context        keys that a decoding request saw
    decode_s       (batch, seconds a step)
    prefill_s      (tokens, seconds) of a lone prompt
    token_s        a prompt token among many prompts
    read_b_per_s   memory; matmul_flop_per_s: bf16; ceilings of the same runs
    """

    model: str
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
            model=model_of(decode),
            gpu=decode["gpu"],
            source=f"{decode['date']}, commit {decode['commit']}",
            context=decode["rows"][0]["context"],
            decode_s=[(row["batch"], row["step_us"] / 1e6) for row in decode["rows"]],
            prefill_s=[(row["input"], row["ttft_s"]) for row in lone],
            token_s=many["ttft_s"] / (many["input"] * many["requests"]),
            read_b_per_s=decode["ceilings"]["read_tb_per_s"] * 1e12,
            matmul_flop_per_s=decode["ceilings"]["matmul_tflop_per_s"] * 1e12,
        )


@dataclass(frozen=True)
class Measured:
    """What the package knows.

    curves  by kind of card and model
    errors  of the simulator: name of a number -> median and worst share
    """

    curves: dict[tuple[str, str], Curves]
    errors: dict[str, tuple[float, float]]

    def base(self, kind: str, model: str) -> Curves:
        """The model's own, or what there is to compute it from."""
        return self.curves.get((kind, model)) or self.curves[kind, REFERENCE]


def measured() -> Measured:
    """From the package's file."""
    told = json.loads((files("haast") / FILE).read_text())
    curves = [(fields.pop("kind"), Curves(**fields)) for fields in told["curves"]]
    return Measured({(kind, c.model): c for kind, c in curves}, told["errors"])


def model_of(record: dict[str, Any]) -> str:
    """gpt-oss-20b of `random-20b`, a checkpoint of its size; "" if it is of neither size."""
    return next((model for model in MODELS if model[len("gpt-oss") :] in record["model"]), "")


def interpolated(points: Points, x: float) -> float:
    """Between points on straight lines, before and behind them on the nearest one."""
    index = min(max(bisect_left(points, x, key=itemgetter(0)), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[index - 1 : index + 1]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
