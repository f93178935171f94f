"""Dense matrix product: attention projections, router, language-model head."""

from torch import Tensor
from torch.nn.functional import linear as torch_linear


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x times the transposed weight, plus bias.

    x        [T, K] bf16 or fp32
    weight   [N, K], dtype of x
    bias     [N] or None
    returns  [T, N], dtype of x; fp32 accumulation, rounded once
    """
    return torch_linear(x, weight, bias)
