"""`haast bench grouped`: one ragged grouped matmul, MXFP4 against BF16."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from haast import ops
from haast.bench.cases import Draw
from haast.bench.experts import (
    BF16_BYTES,
    active_experts,
    bf16_grouped,
    grouped_work,
    mxfp4_bytes,
)
from haast.bench.machine import BenchError, hopper, one_line
from haast.bench.rooflines import Ceilings
from haast.bench.timing import Calls, Timing, sets_past_l2, time_together
from haast.model.random_weights import dequantize_experts
from haast.mxfp4 import HopperLayout

LAYOUT = HopperLayout(paired=False)
Which = Literal["gate_up", "down"]


@dataclass(frozen=True)
class Grouped:
    """What to measure; names as in the baseline's program."""

    P: int
    """rows, spread over the experts uniformly at random"""
    K: int
    N: int
    which: Which
    """the projection that the result is filed under; the shape is P, K, N in both cases"""
    experts: int
    seed: int
    warmup: int
    iters: int


def measure(shape: Grouped, l2_bytes: int, ceilings: Ceilings) -> dict[str, Any]:
    """Times, floor and ratio; see `finish`.

    Inputs and weights both rotate past the L2 cache. Raises BenchError where there is no Hopper
    GPU, no kernel takes the shape or memory is missing.
    """
    try:
        LAYOUT.storage_shape((shape.experts, shape.N, shape.K))
    except ValueError as error:
        raise BenchError(str(error)) from None
    draw = Draw.on(hopper(), shape.seed)
    assert draw.generator is not None, draw
    offs = spread_rows(shape.P, shape.experts, draw.generator)
    with one_line():
        variants = _variants(shape, draw, offs, l2_bytes)
        timings, card = time_together(variants, shape.warmup, shape.iters)
    return finish(shape, active_experts(offs), timings, ceilings) | {"card": asdict(card)}


def spread_rows(num_rows: int, num_experts: int, generator: torch.Generator) -> Tensor:
    """[E + 1] int32, prefix sum of rows per expert when each row picks one uniformly."""
    picks = torch.randint(num_experts, (num_rows,), generator=generator, device=generator.device)
    sizes = torch.bincount(picks, minlength=num_experts)
    return pad(sizes.cumsum(0), (1, 0)).int()


def _variants(shape: Grouped, draw: Draw, offs: Tensor, l2_bytes: int) -> dict[str, Calls]:
    x_bytes = BF16_BYTES * shape.P * shape.K
    packed = x_bytes + shape.experts * mxfp4_bytes(shape.N, shape.K)
    wide = x_bytes + shape.experts * BF16_BYTES * shape.N * shape.K
    num_packed, num_wide = sets_past_l2(packed, l2_bytes), sets_past_l2(wide, l2_bytes)
    mxfp4: list[partial[Tensor]] = []
    bf16: list[partial[Tensor]] = []
    for index in range(max(num_packed, num_wide)):
        x = draw.normal(shape.P, shape.K)
        weight = draw.mxfp4(shape.experts, shape.N, shape.K)
        swizzled = weight.swizzled(LAYOUT)
        mxfp4.append(partial(ops.grouped_matmul, x, swizzled, offs))
        if index < num_wide:
            bf16.append(partial(bf16_grouped, x, dequantize_experts(weight), offs))
    return {"mxfp4": mxfp4, "bf16": bf16}


def finish(
    shape: Grouped, num_experts: int, timings: dict[str, Timing], ceilings: Ceilings
) -> dict[str, Any]:
    """The JSON fields: timings, ratio BF16 / MXFP4, floor and MXFP4's percentage of it."""
    floor_us = grouped_work(shape.P, shape.N, shape.K, num_experts).floor_us(ceilings)
    mxfp4, bf16 = timings["mxfp4"], timings["bf16"]
    return {
        **asdict(shape),
        "active_experts": num_experts,
        "mxfp4": asdict(mxfp4),
        "bf16": asdict(bf16),
        "ratio": bf16.median_us / mxfp4.median_us,
        "floor_us": floor_us,
        "percent_of_floor": 100 * floor_us / mxfp4.median_us,
    }
