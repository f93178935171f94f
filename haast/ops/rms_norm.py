"""Root-mean-square normalisation."""

import torch
from torch import Tensor

from haast.ops.dispatch import Op


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
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


rms_norm = Op("rms_norm", rms_norm_reference)
