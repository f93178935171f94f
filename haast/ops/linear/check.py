"""What the kernels ask of their arguments."""

import torch
from torch import Tensor

from haast.ops.check import FLOATS, check_devices, check_tensor

BIAS_ALIGNMENT = 2
BLOCK_K = 64
"""K comes in blocks of so many"""


def why_rejected(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    """Why no kernel of ours takes the call, whatever its size, or None. Raises ValueError."""
    check_tensor("x", x, FLOATS, None, None)
    check_tensor("weight", weight, x.dtype, None, x.shape[1])
    check_devices(x=x, weight=weight)
    if bias is not None:
        check_tensor("bias", bias, x.dtype, len(weight), alignment=BIAS_ALIGNMENT)
        check_devices(x=x, bias=bias)
    if x.dtype != torch.bfloat16:
        return f"takes torch.bfloat16, got {x.dtype}"
    if x.shape[1] % BLOCK_K or not x.shape[1]:
        return f"takes rows of a multiple of {BLOCK_K}, got {x.shape[1]}"
    return None
