"""Adds the terms of a token's experts. See cuda/moe_combine.cu."""

import torch
from torch import Tensor

from haast.cuda.launcher import launch

OF_FP32, OF_BF16 = "moe_combine_fp32", "moe_combine_bf16"
_PIECE_BYTES = 16
_THREADS = 256


def combine(slots: Tensor, num_active: int) -> Tensor:
    """Sum over parts of K and a token's choices, in that order for each choice.

    slots       [parts, T * A, H] fp32 or bf16, weighted terms; H a multiple of 8
    num_active  A
    returns     [T, H] bf16
    """
    parts, num_rows, hidden = slots.shape
    num_tokens = num_rows // num_active
    out = torch.empty(num_tokens, hidden, dtype=torch.bfloat16, device=slots.device)
    pieces = hidden * slots.element_size() // _PIECE_BYTES
    if num_tokens:
        launch(
            "moe_combine",
            OF_BF16 if slots.dtype == torch.bfloat16 else OF_FP32,
            grid=-(-(num_tokens * pieces) // _THREADS),
            block=_THREADS,
            shared_bytes=0,
            args=(slots, out, num_tokens, num_active, pieces, parts),
        )
    return out
