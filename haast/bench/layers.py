"""Copies of a layer's expert weights, enough of them that no turn finds its weights in the L2."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from haast.bench.cases import Draw
from haast.bench.experts import BF16_BYTES, mxfp4_bytes
from haast.bench.rival import RivalLayer
from haast.bench.timing import sets_past_l2
from haast.config import ModelConfig
from haast.model.random_weights import dequantize_experts
from haast.mxfp4 import HopperLayout, SwizzledWeight

FREE_SHARE = 0.8
"""Of the free memory, the share that all copies may take if BF16 ones are among them"""


@dataclass(frozen=True)
class Layer:
    """One copy, in each form that is timed."""

    up: SwizzledWeight
    down: SwizzledWeight
    bf16: tuple[Tensor, Tensor] | None
    """up and down dequantised; None where that copy is not needed or does not fit"""
    rival: RivalLayer | None


@dataclass(frozen=True)
class Copies:
    """How many copies the smallest number of active experts needs."""

    mxfp4: int
    bf16: int


def expert_bytes(config: ModelConfig, is_up: bool, is_bf16: bool) -> int:
    """Bytes of one expert's matrix of one projection."""
    n = 2 * config.intermediate_size if is_up else config.hidden_size
    k = config.hidden_size if is_up else config.intermediate_size
    return BF16_BYTES * n * k if is_bf16 else mxfp4_bytes(n, k)


def copies_for(config: ModelConfig, active: Sequence[int], l2_bytes: int, free: int) -> Copies:
    """Copies for the fewest active experts; no BF16 ones if they would not fit.

    active    active experts of each size that is timed
    l2_bytes  size of the L2 cache
    free      bytes of free memory
    """
    fewest = min(active)
    # the down projection is the smaller one
    mxfp4 = sets_past_l2(fewest * expert_bytes(config, False, False), l2_bytes)
    bf16 = sets_past_l2(fewest * expert_bytes(config, False, True), l2_bytes)
    packed, wide = (
        config.num_experts * (expert_bytes(config, True, form) + expert_bytes(config, False, form))
        for form in (False, True)
    )
    return Copies(mxfp4, bf16 if mxfp4 * packed + bf16 * wide < FREE_SHARE * free else 0)


def make_layers(config: ModelConfig, copies: Copies, draw: Draw, with_rival: bool) -> list[Layer]:
    """Random weights on the GPU."""
    return [_layer(config, draw, index < copies.bf16, with_rival) for index in range(copies.mxfp4)]


def _layer(config: ModelConfig, draw: Draw, with_bf16: bool, with_rival: bool) -> Layer:
    experts, hidden, inner = config.num_experts, config.hidden_size, config.intermediate_size
    up, down = draw.mxfp4(experts, 2 * inner, hidden), draw.mxfp4(experts, hidden, inner)
    return Layer(
        up=up.swizzled(HopperLayout(paired=True)),
        down=down.swizzled(HopperLayout(paired=False)),
        bf16=(dequantize_experts(up), dequantize_experts(down)) if with_bf16 else None,
        rival=RivalLayer.of(up, down, config.swiglu_limit) if with_rival else None,
    )


def free_bytes() -> int:
    """Free memory of the current GPU."""
    return torch.cuda.mem_get_info()[0]
