"""Time of any op that has kernels, at a model's shapes."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from torch import Tensor

from haast.bench.cases import BUILDERS, Draw
from haast.bench.machine import hopper
from haast.bench.tables import op_table
from haast.bench.timing import sets_past_l2, time_together
from haast.config import ModelConfig
from haast.ops import Op

MAX_SETS = 200
"""Of arguments; small ones stay in the L2 cache, where the step's last kernel left them anyway"""
WARMUP = 3


def tensor_bytes(value: object) -> int:
    """Bytes of all tensors in an argument."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, tuple | list):
        return sum(map(tensor_bytes, value))
    if is_dataclass(value):
        return sum(tensor_bytes(getattr(value, field.name)) for field in fields(value))
    return 0


def measure(
    ops: Sequence[Op[Any, Any]],
    config: ModelConfig,
    tokens: Sequence[int],
    replays: int,
    l2_bytes: int,
) -> Iterator[dict[str, Any]]:
    """A row for each op and number of tokens: what it launches, and the time of a call.

    Arguments rotate over more than the L2 cache, or over MAX_SETS sets of them.
    """
    device = hopper()
    for op in ops:
        for count in tokens:
            build = BUILDERS[op.name]
            first = build(Draw.on(device), config, count)
            sets = min(MAX_SETS, sets_past_l2(tensor_bytes(first), l2_bytes))
            others = [build(Draw.on(device, seed), config, count) for seed in range(1, sets)]
            calls = [partial(op, *arguments) for arguments in (first, *others)]
            timings, _ = time_together({op.name: calls}, WARMUP, replays)
            timing = timings[op.name]
            yield {
                "op": op.name,
                "tokens": count,
                "symbols": [*op_table(op, config, count).symbols],
                "sets": sets,
                "us": timing.median_us,
                "p10_us": timing.p10_us,
                "p90_us": timing.p90_us,
            }
