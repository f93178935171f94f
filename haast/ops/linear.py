"""Dense matrix product: attention projections, router, language-model head."""

import torch
from torch import Tensor
from torch.nn.functional import linear as torch_linear

from haast.ops.dispatch import Kernel, Op

FIXED_ROWS = 128


def linear_reference(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x times the transposed weight, plus bias.

    x        [T, K] bf16 or fp32
    weight   [N, K], dtype of x
    bias     [N] or None
    returns  [T, N], dtype of x; fp32 accumulation, rounded once
    """
    return torch_linear(x, weight, bias)


def _fixed_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same in pieces of FIXED_ROWS rows, the last one padded: the library picks its kernel by
    shape, so a row's bits depend on nothing else."""
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


linear = Op(
    "linear",
    linear_reference,
    (
        Kernel(
            "fixed_rows",
            _fixed_rows,
            _rejects,
            _symbols,
            because="when pinned: bits of a row do not depend on the batch",
            is_default=False,
        ),
    ),
)
