"""Few rows an expert: mma.sync, weights streamed once. See cuda/moe_mma.cu."""

from dataclasses import dataclass

import torch
from torch import Tensor

from haast.cuda.launcher import launch, multiprocessors
from haast.mxfp4 import SwizzledWeight
from haast.ops.dispatch import Kernel
from haast.ops.hopper import why_no_kernels
from haast.ops.moe.check import check_down, check_up
from haast.ops.moe.combine import OF_FP32, combine
from haast.ops.moe.reference import ExpertWeights
from haast.ops.moe.routing import Routing

MAX_ROWS_PER_EXPERT = 12.0
"""On average; beyond, wgmma is faster (bench/results/moe.jsonl)"""
MAX_ROWS_OF_N8 = 4.0
_MODULE = "moe_mma"
_THREADS = 512
_MATH_WARPS = 12
_SUM_SLOTS = 2
_MAX_STAGES = 8
_SHARED_LIMIT = 227 * 1024
_SHARED_OF_N8 = 150 * 1024
"""Leaves room for the kernels before and after it, whose starts then overlap: a decode step of
gpt-oss-20b takes 5 % less at 4 to 32 tokens (H100)"""
_MAX_BLOCKS = 48
"""of 64 k: 12 math warps keep four of them each, of the routed rows, in registers"""


@dataclass(frozen=True)
class _Geometry:
    """How one launch is cut."""

    chunk_rows: int
    """routed rows of a unit, 8 or 16"""
    parts: int
    """of K"""
    stages: int
    """of the weight ring"""
    shared_bytes: int


def _geometry(weight: SwizzledWeight, num_rows: int, parts: int) -> _Geometry:
    num_experts, _, blocks, block_bytes = weight.storage.shape
    chunk_rows = 8 if num_rows <= MAX_ROWS_OF_N8 * num_experts else 16
    rows = chunk_rows * (blocks * 128 + 16)
    sums = _SUM_SLOTS * _MATH_WARPS * chunk_rows * 64
    fixed = rows + sums + 8 * (_SUM_SLOTS + 2) + 4 * (num_experts + 1)
    stage = -(-blocks // parts) * block_bytes + 32 + 16  # weights, bias, two barriers
    limit = _SHARED_OF_N8 if chunk_rows == 8 else _SHARED_LIMIT
    stages = min(_MAX_STAGES, (limit - fixed) // stage)
    return _Geometry(chunk_rows, parts, stages, fixed + stages * stage)


def _parts(weight: SwizzledWeight, num_rows: int) -> int:
    """K is halved where there are too few tiles to give every SM an equal share."""
    num_experts, tiles, blocks, _ = weight.storage.shape
    few = min(num_experts, num_rows) * tiles < 8 * multiprocessors(weight.device)
    return 2 if few and blocks >= 2 * _MATH_WARPS else 1


def _rejects(weight: SwizzledWeight, num_rows: int) -> str | None:
    mean = num_rows / weight.shape[0] if weight.shape[0] else 0.0
    if mean > MAX_ROWS_PER_EXPERT:
        return f"takes at most {MAX_ROWS_PER_EXPERT:g} rows an expert on average, got {mean:g}"
    if weight.storage.shape[-2] > _MAX_BLOCKS:
        return f"takes K up to {64 * _MAX_BLOCKS}, got {weight.k}"
    return why_no_kernels(weight.device)


def _rejects_up(
    x: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing, limit: float
) -> str | None:
    return _rejects(check_up(x, weight, bias, routing), routing.gather_idx.numel())


def _rejects_down(h: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing) -> str | None:
    return _rejects(check_down(h, weight, bias, routing), len(h))


def _symbols_up(
    x: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing, limit: float
) -> tuple[str, ...]:
    assert isinstance(weight, SwizzledWeight)
    num_rows = routing.gather_idx.numel()
    return (f"moe_up_mma_n{_geometry(weight, num_rows, 1).chunk_rows}",) if num_rows else ()


def _symbols_down(
    h: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing
) -> tuple[str, ...]:
    assert isinstance(weight, SwizzledWeight)
    if len(h) == 0:
        return ()
    return (f"moe_down_mma_n{_geometry(weight, len(h), 1).chunk_rows}", OF_FP32)


def _up(x: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing, limit: float) -> Tensor:
    assert isinstance(weight, SwizzledWeight)
    num_experts, tiles, _, _ = weight.storage.shape
    num_rows = routing.gather_idx.numel()
    out = torch.empty(num_rows, tiles * 8, dtype=torch.bfloat16, device=x.device)
    shape = _geometry(weight, num_rows, 1)
    for symbol in _symbols_up(x, weight, bias, routing, limit):
        launch(
            _MODULE,
            symbol,
            grid=multiprocessors(x.device),
            block=_THREADS,
            shared_bytes=shape.shared_bytes,
            args=(
                *(x, weight.storage, bias, routing.expert_offs, routing.gather_idx, out),
                *(num_experts, weight.k, tiles, shape.stages, float(limit)),
            ),
        )
    return out


def _down(h: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing) -> Tensor:
    assert isinstance(weight, SwizzledWeight)
    num_experts, tiles, _, _ = weight.storage.shape
    shape = _geometry(weight, len(h), _parts(weight, len(h)))
    slots = torch.empty(shape.parts, len(h), tiles * 16, device=h.device)
    for symbol in _symbols_down(h, weight, bias, routing)[:1]:
        launch(
            _MODULE,
            symbol,
            grid=multiprocessors(h.device),
            block=_THREADS,
            shared_bytes=shape.shared_bytes,
            args=(
                *(h, weight.storage, bias, routing.expert_offs),
                *(routing.expert_weights, routing.scatter_idx, slots),
                *(num_experts, weight.k, tiles, shape.parts, shape.stages, len(h)),
            ),
        )
    return combine(slots, routing.expert_ids.shape[1])


_BECAUSE = "2.5-2.7 TB/s at 8-64 tokens (H100), where wgmma has 2.3; bench/results/moe.jsonl"
UP = Kernel("cuda_mma", _up, _rejects_up, _symbols_up, because=_BECAUSE)
DOWN = Kernel("cuda_mma", _down, _rejects_down, _symbols_down, because=_BECAUSE)
