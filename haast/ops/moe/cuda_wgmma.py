"""Many rows an expert: wgmma with decoded weights in registers. See cuda/moe_wgmma.cu."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from haast.cuda.launcher import Argument, launch, multiprocessors
from haast.cuda.tensor_map import block_map, row_map
from haast.mxfp4 import SwizzledWeight
from haast.ops.dispatch import Kernel
from haast.ops.hopper import why_no_kernels
from haast.ops.moe.check import check_down, check_grouped, check_up
from haast.ops.moe.combine import OF_BF16, combine
from haast.ops.moe.reference import ExpertWeights
from haast.ops.moe.routing import Routing

GATHER = "moe_gather"
_GATHER_THREADS = 192
_MODULE = "moe_wgmma"
_THREADS = 512
_BOX_ROWS = 16
"""Of x, as `BOX_ROWS` of moe_wgmma.cu"""


@dataclass(frozen=True)
class _Variant:
    """A compiled tile: weight rows x routed rows."""

    suffix: str
    rows: int
    """routed rows at most"""
    row_tiles: int
    """of 16 weight rows"""
    stages: int

    @property
    def shared_bytes(self) -> int:
        """Without the list of tiles; the layout of `Shape` in moe_wgmma.cu."""
        stage = self.rows * 128 + self.row_tiles * 544
        return self.stages * (stage + 16) + self.rows * 3 * 8


_LOW = _Variant("n48", rows=48, row_tiles=24, stages=8)
_TALL = _Variant("n96", rows=96, row_tiles=24, stages=8)
_WIDE = _Variant("n192", rows=192, row_tiles=12, stages=7)
_SLACK = 1.25
"""Over an even share, so that most experts need no further chunk"""
MAX_ROWS_OF_LOW, MAX_ROWS_OF_TALL = 36.0, 80.0
"""On average an expert, so that most experts have one tile only"""


def _variant(weight: SwizzledWeight, num_rows: int) -> _Variant:
    mean = num_rows / weight.shape[0]
    if mean <= MAX_ROWS_OF_LOW:
        return _LOW
    return _TALL if mean <= MAX_ROWS_OF_TALL else _WIDE


def _max_rows(weight: SwizzledWeight, num_rows: int, variant: _Variant) -> int:
    """Routed rows of a tile: fewer than it could have where that keeps more SMs busy."""
    num_experts, tiles, _, _ = weight.storage.shape
    columns = num_experts * -(-tiles // variant.row_tiles)
    chunks = multiprocessors(weight.device) // columns
    if chunks < 2:
        return variant.rows
    share = _SLACK * num_rows / (num_experts * chunks)
    return min(variant.rows, 16 * max(2, math.ceil(share / 16)))


def _launch(
    symbol: str,
    x: Tensor,
    weight: SwizzledWeight,
    bias: Tensor | None,
    expert_offs: Tensor,
    *results: Argument,
) -> None:
    """x [R, K], rows sorted by expert."""
    variant = _variant(weight, len(x))
    num_experts, tiles, _, _ = weight.storage.shape
    maps = (row_map(x, _BOX_ROWS), block_map(weight.storage, variant.row_tiles))
    sizes = (num_experts, weight.k, tiles, _max_rows(weight, len(x), variant))
    launch(
        _MODULE,
        symbol,
        grid=multiprocessors(x.device),
        block=_THREADS,
        shared_bytes=variant.shared_bytes + 4 * (num_experts + 1),
        args=(*maps, bias, expert_offs, *sizes, *results),
    )


def _gather(x: Tensor, gather_idx: Tensor) -> Tensor:
    """Rows of x in routed order."""
    out = torch.empty(len(gather_idx), x.shape[1], dtype=x.dtype, device=x.device)
    launch(
        GATHER,
        GATHER,
        grid=len(out),
        block=_GATHER_THREADS,
        shared_bytes=0,
        args=(x, gather_idx, out, x.shape[1] // 8),
    )
    return out


def _rejects_up(
    x: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing, limit: float
) -> str | None:
    return why_no_kernels(check_up(x, weight, bias, routing).device)


def _rejects_down(h: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing) -> str | None:
    return why_no_kernels(check_down(h, weight, bias, routing).device)


def _rejects_grouped(
    x: Tensor, weight: ExpertWeights, expert_offs: Tensor, out_dtype: torch.dtype = torch.bfloat16
) -> str | None:
    return why_no_kernels(check_grouped(x, weight, expert_offs, out_dtype).device)


def _symbols_up(
    x: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing, limit: float
) -> tuple[str, ...]:
    assert isinstance(weight, SwizzledWeight)
    num_rows = routing.gather_idx.numel()
    if num_rows == 0:
        return ()
    return (GATHER, f"moe_up_wgmma_{_variant(weight, num_rows).suffix}")


def _symbols_down(
    h: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing
) -> tuple[str, ...]:
    assert isinstance(weight, SwizzledWeight)
    if len(h) == 0:
        return ()
    return (f"moe_down_wgmma_{_variant(weight, len(h)).suffix}", OF_BF16)


def _symbols_grouped(
    x: Tensor, weight: ExpertWeights, expert_offs: Tensor, out_dtype: torch.dtype = torch.bfloat16
) -> tuple[str, ...]:
    assert isinstance(weight, SwizzledWeight)
    kind = "bf16" if out_dtype == torch.bfloat16 else "fp32"
    return (f"grouped_wgmma_{_variant(weight, len(x)).suffix}_{kind}",) if len(x) else ()


def _up(x: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing, limit: float) -> Tensor:
    assert isinstance(weight, SwizzledWeight)
    num_rows = routing.gather_idx.numel()
    width = weight.shape[-2] // 2
    out = torch.empty(num_rows, width, dtype=torch.bfloat16, device=x.device)
    for symbol in _symbols_up(x, weight, bias, routing, limit)[1:]:
        rows = _gather(x, routing.gather_idx)
        _launch(symbol, rows, weight, bias, routing.expert_offs, out, float(limit))
    return out


def _down(h: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing) -> Tensor:
    assert isinstance(weight, SwizzledWeight)
    slots = torch.empty(1, len(h), weight.shape[-2], dtype=h.dtype, device=h.device)
    results = (slots, routing.expert_weights, routing.scatter_idx)
    for symbol in _symbols_down(h, weight, bias, routing)[:1]:
        _launch(symbol, h, weight, bias, routing.expert_offs, *results)
    return combine(slots, routing.expert_ids.shape[1])


def _grouped(
    x: Tensor, weight: ExpertWeights, expert_offs: Tensor, out_dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    assert isinstance(weight, SwizzledWeight)
    out = torch.empty(len(x), weight.shape[-2], dtype=out_dtype, device=x.device)
    for symbol in _symbols_grouped(x, weight, expert_offs, out_dtype):
        _launch(symbol, x, weight, None, expert_offs, out)
    return out


_BECAUSE = "508-582 TFLOP/s from 1024 tokens on (H100); bench/results/moe.jsonl"
UP = Kernel("cuda_wgmma", _up, _rejects_up, _symbols_up, because=_BECAUSE)
DOWN = Kernel("cuda_wgmma", _down, _rejects_down, _symbols_down, because=_BECAUSE)
GROUPED = Kernel(
    "cuda_wgmma",
    _grouped,
    _rejects_grouped,
    _symbols_grouped,
    because="1.6 times as fast as BF16 at P=4096; bench/results/grouped.jsonl",
)
