"""An exact head that reads half the bytes: 8-bit codes say which tokens cannot be sampled.

A row w of the weight has codes q and a scale s, so that w = s q + e. For a token's hidden state x

    x.w = s (x.q) + x.e        and        |x.e| <= |x| |e|        (Cauchy-Schwarz)

with Euclidean norms. `linear` does not give x.w but a sum in fp32, and so is x.q here. In a sum of
K products each may lose LOSS = 1.25 * 2^-23 of the sum of all magnitudes: tensor cores add 16
products, which are exact of bf16, to what they have, and cut all 17 and the result below 2^-23 of
the largest one, so 18 times for 16 products; plain fp32 loses less in any order. That sum of
magnitudes is at most |x| |w|, or |x| |s q| over the codes (Cauchy-Schwarz again). So with

    radius = |e| + LOSS (K + 64) (|w| + |s q|)

what `linear` has before it rounds to bf16 lies within |x| radius of s times the sum over the codes.
The 64 stand for the roundings after that sum; SPARE_NORM and SPARE for what underflows; norms are
rounded up. Rounding is monotone, so a token's logit lies between the rounded ends of that interval.

The k-th largest lower end is a logit that k tokens reach. A token whose upper end lies below it is
not among the k most likely, ties included. With k = top_k, or 1 in greedy rows, sampling never
picks such a token: its logit may as well be -inf. The same goes for min_p where nothing is filtered
before it: it drops what lies further than T ln(1 / min_p) below the largest lower end. Rows sampled
without such a filter get all logits, so that the op is right for every setting.

A row of the weight without a bound (NaN, infinite or huge) is always computed; if x is not finite
or huge, all rows are.
"""

import torch
from torch import Tensor

from haast.ops.linear.reference import linear
from haast.ops.sample.reference import Sampling
from haast.ops.shortlist.shadow import LARGEST, ShadowHead

NORM_LOSS = 2.0**-12
"""What the norm of x loses by rounding, with much to spare"""
SPARE_NORM = 2.0**-50
SPARE = 2.0**-64
MIN_P_SLACK = 0.01
"""By which min_p is taken lower, as a logarithm: kernels weigh tokens in fp32"""


def shortlist(x: Tensor, weight: Tensor, shadow: ShadowHead, sampling: Sampling) -> Tensor:
    """The logits that `linear` gives, or -inf for tokens that `sample` cannot pick.

    x         [T, K] bf16 or fp32
    weight    [V, K], dtype of x
    shadow    ShadowHead of that weight
    sampling  of the T rows; what it says of temperature, top_k, top_p and min_p decides
    returns   [T, V], dtype of x; logits that are not -inf have the bits that `linear` gives them,
              those of its cuda_mma if kernels compute them
    `sample` picks the same tokens from these logits as from all of them.
    """
    logits = linear(x, weight, None)
    lower, upper = ends(x, shadow)
    is_out = upper < least_kept(lower, sampling)[:, None]
    return logits.masked_fill(is_out, -torch.inf)


def ends(x: Tensor, shadow: ShadowHead) -> tuple[Tensor, Tensor]:
    """Between what each logit lies, [T, V] each, dtype of x; NaN or infinite without a bound."""
    scale, radius = shadow.bounds.unbind(1)
    wide = x.float()
    middle = wide @ shadow.codes.float().T * scale
    slack = norms(wide)[:, None] * radius + SPARE
    return (middle - slack).to(x.dtype), (middle + slack).to(x.dtype)


def norms(x: Tensor) -> Tensor:
    """[T], no smaller than the norms of x [T, K] fp32; infinite for those without a bound."""
    norm = x.norm(dim=1) * (1 + NORM_LOSS) + SPARE_NORM
    return torch.where(norm <= LARGEST, norm, torch.inf)


def least_kept(lower: Tensor, sampling: Sampling) -> Tensor:
    """[T] fp64: below it no logit is kept, given what each is at least [T, V]."""
    ranked = lower.double().nan_to_num(nan=-torch.inf).sort(dim=1, descending=True).values
    is_greedy = sampling.temperature == 0
    count = torch.where(is_greedy, 1, sampling.top_k.long()).clamp(1, lower.shape[1])
    least = ranked.gather(1, count[:, None] - 1)[:, 0]
    further = sampling.temperature.double() * (sampling.min_p.double().log() - MIN_P_SLACK)
    by_min_p = torch.where(is_greedy | (sampling.top_p < 1), -torch.inf, ranked[:, 0] + further)
    return torch.maximum(least, by_min_p)
