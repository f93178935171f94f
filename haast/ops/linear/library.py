"""The library that torch calls, for any number of tokens."""

import torch
from torch import Tensor
from torch.nn.functional import linear as torch_linear

from haast.ops.dispatch import Kernel
from haast.ops.linear import reference

FIXED_ROWS = 128


def _fixed_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """In pieces of FIXED_ROWS rows, the last one padded: the library picks its kernel by shape, so
    a row's bits depend on nothing else."""
    num_rows = len(x)
    out = torch.empty(num_rows, len(weight), dtype=x.dtype, device=x.device)
    for first in range(0, num_rows, FIXED_ROWS):
        piece = x[first : first + FIXED_ROWS]
        if len(piece) < FIXED_ROWS:
            padded = x.new_zeros(FIXED_ROWS, x.shape[1])
            padded[: len(piece)] = piece
            out[first:] = torch_linear(padded, weight, bias)[: len(piece)]
        else:
            out[first : first + FIXED_ROWS] = torch_linear(piece, weight, bias)
    return out


def _rejects(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    return None


def _symbols(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[str, ...]:
    """None of ours."""
    return ()


CUBLAS = Kernel(
    "cublas",
    reference.linear,
    _rejects,
    _symbols,
    because="600 TFLOP/s at 8192 tokens; up to 16 tokens cuda_mma is faster (H100)",
)
FIXED = Kernel(
    "fixed_rows",
    _fixed_rows,
    _rejects,
    _symbols,
    because="when pinned: bits of a row do not depend on the batch",
    is_default=False,
)
