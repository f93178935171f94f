"""What the two expert matmuls of a layer cannot avoid, and the same in BF16."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from haast.bench.rooflines import Work
from haast.config import ModelConfig
from haast.mxfp4 import GROUP

BF16_BYTES = 2


def mxfp4_bytes(n: int, k: int) -> int:
    """An [N, K] matrix in MXFP4: half a byte an element and a byte a group."""
    return n * k // 2 + n * k // GROUP


def up_work(config: ModelConfig, num_tokens: int, num_experts: int) -> Work:
    """moe_up: the active experts' weights once, x in, h out."""
    rows, hidden = num_tokens * config.num_active_experts, config.hidden_size
    wide = 2 * config.intermediate_size
    moved = num_tokens * hidden + rows * config.intermediate_size
    return Work(
        num_experts * mxfp4_bytes(wide, hidden) + BF16_BYTES * moved, 2 * rows * wide * hidden
    )


def down_work(config: ModelConfig, num_tokens: int, num_experts: int) -> Work:
    """moe_down with its combine: the active experts' weights once, h in, x out."""
    rows, hidden = num_tokens * config.num_active_experts, config.hidden_size
    inner = config.intermediate_size
    moved = rows * inner + num_tokens * hidden
    return Work(
        num_experts * mxfp4_bytes(hidden, inner) + BF16_BYTES * moved, 2 * rows * hidden * inner
    )


def grouped_work(num_rows: int, n: int, k: int, num_experts: int) -> Work:
    """grouped_matmul of [R, K] with the [N, K] of the active experts."""
    moved = num_rows * (k + n)
    return Work(num_experts * mxfp4_bytes(n, k) + BF16_BYTES * moved, 2 * num_rows * n * k)


def active_experts(expert_offs: Tensor) -> int:
    """How many experts have rows (a device sync)."""
    return int((expert_offs.diff() > 0).sum())


def bf16_grouped(x: Tensor, weight: Tensor, expert_offs: Tensor) -> Tensor:
    """torch's grouped matmul: rows [R, K] by expert times [E, N, K] bf16 -> [R, N]."""
    return torch._grouped_mm(x, weight.transpose(1, 2), offs=expert_offs[1:])


def op_work(op: str, config: ModelConfig, arguments: Sequence[Any]) -> Work:
    """What a call with the arguments of `cases.BUILDERS` cannot avoid (a device sync)."""
    if op == "route":
        logits, num_active = arguments
        rows = logits.shape[0] * num_active
        # ids, weights, gather and scatter indices, four bytes each
        return Work(logits.nbytes + 4 * (4 * rows + config.num_experts + 1), 0)
    if op == "grouped_matmul":
        x, weight, offs = arguments
        _, n, k = weight.shape
        return grouped_work(len(x), n, k, active_experts(offs))
    if op == "linear":
        x, weight, _ = arguments
        written = BF16_BYTES * len(x) * len(weight)
        return Work(x.nbytes + weight.nbytes + written, 2 * len(x) * weight.numel())
    if op == "shortlist":
        x, _, shadow, _ = arguments
        written = BF16_BYTES * len(x) * len(shadow.codes)
        return Work(x.nbytes + shadow.nbytes + written, 2 * len(x) * shadow.codes.numel())
    routing = arguments[3]
    work = {"moe_up": up_work, "moe_down": down_work}[op]
    return work(config, len(routing.expert_ids), active_experts(routing.expert_offs))
