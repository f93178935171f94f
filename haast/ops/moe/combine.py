"""Adds the terms of a token's experts. See cuda/moe_combine.cu."""

import torch
from torch import Tensor

from haast.cuda.launcher import launch

COMBINE = "moe_combine"
_THREADS = 256


def combine(slots: Tensor, num_active: int) -> Tensor:
    """Sum over parts of K and a token's choices, in that order for each choice.

    slots       [parts, T * A, H] fp32, weighted terms; H a multiple of 4
    num_active  A
    returns     [T, H] bf16
    """
    parts, num_rows, hidden = slots.shape
    num_tokens = num_rows // num_active
    out = torch.empty(num_tokens, hidden, dtype=torch.bfloat16, device=slots.device)
    if num_tokens:
        launch(
            "moe_combine",
            COMBINE,
            grid=-(-(num_tokens * hidden // 4) // _THREADS),
            block=_THREADS,
            shared_bytes=0,
            args=(slots, out, num_tokens, num_active, hidden, parts),
        )
    return out
