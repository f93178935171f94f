"""Root-mean-square normalisation, alone or after a residual sum."""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Each row divided by its root mean square, times a learned weight.

    x        [T, H] bf16 or fp32
    weight   [H]
    returns  [T, H], dtype of x
    x / sqrt(mean(x^2) + eps) * weight, computed in fp32 and rounded once.
    Source: openai/gpt-oss gpt_oss/torch/model.py, RMSNorm.
    """
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale * weight.float()).to(x.dtype)


def add_rms_norm(x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """A residual sum and its normalisation.

    x, delta  [T, H] bf16 or fp32, of one dtype
    weight    [H]
    returns   x + delta, and `rms_norm` of that; [T, H], dtype of x
    The sum is rounded before it is normalised.
    """
    total = x + delta
    return total, rms_norm(total, weight, eps)
