"""Rotary position embedding with YaRN frequencies."""

import math

import torch
from torch import Tensor

from haast.config import RopeConfig


def rotate(x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys turned by the angle of their absolute position.

    x          [T, heads, D] bf16 or fp32; dimension i pairs with i + D/2
    positions  [T] int32 or int64
    cos, sin   [max_length, D/2] fp32 from `rope_tables`, rounded to x's dtype before use
    returns    x1 cos - x2 sin, x2 cos + x1 sin; products and sums in fp32, rounded once
    Source: openai/gpt-oss gpt_oss/torch/model.py, _apply_rotary_emb.
    """
    cos = cos[positions, None].to(x.dtype).float()
    sin = sin[positions, None].to(x.dtype).float()
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


def rope_tables(config: RopeConfig, head_dim: int, max_length: int) -> tuple[Tensor, Tensor]:
    """cos and sin [max_length, D/2] fp32 for every position, YaRN's concentration included.

    Low frequencies are interpolated by `factor`, high ones kept, those between blended linearly.
    Source: YaRN (arXiv 2309.00071), section 3; openai/gpt-oss RotaryEmbedding.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    kept = 1.0 / config.theta**exponents
    low, high = _blend_range(config, head_dim)
    ramp = ((torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    frequencies = kept / config.factor * ramp + kept * (1 - ramp)
    angles = torch.arange(max_length, dtype=torch.float32)[:, None] * frequencies
    concentration = 0.1 * math.log(config.factor) + 1.0
    return angles.cos() * concentration, angles.sin() * concentration


def _blend_range(config: RopeConfig, head_dim: int) -> tuple[float, float]:
    """Pair indices between which frequencies go from kept to interpolated."""

    def pair_of(turns: float) -> float:
        """The pair that makes `turns` full turns over the original context."""
        wavelength = config.original_max_length / (turns * 2 * math.pi)
        return head_dim * math.log(wavelength) / (2 * math.log(config.theta))

    low, high = pair_of(config.beta_fast), pair_of(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    return low, high if high != low else low + 0.001
