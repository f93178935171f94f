"""Which steps get their logits by way of a shadow head.

All of a step's rows must be such that few tokens matter to them, which their settings tell: greedy
ones, those with a small top_k, those with a min_p and no top_p before it. Whoever wants more of the
logits than a token (log-probabilities, penalties, biases, masks) gets all of them, as do rows drawn
from all tokens.
"""

from math import log

from haast.engine.sampling_params import SamplingParams
from haast.engine.step import Step
from haast.ops.shortlist.cuda_scan import MAX_TOKENS

MOST_TOP_K = 64
"""Kernels know one token of each of 132 groups, of which the k-th largest has to do for all"""
FURTHEST = 5.0
"""Below the largest logit, that a token may matter by its min_p; further down there are too many"""


def is_bounded(params: SamplingParams) -> bool:
    """Whether few tokens matter to a row that is drawn like that."""
    if params.temperature == 0 or (params.top_k is not None and params.top_k <= MOST_TOP_K):
        return True
    if params.top_p < 1 or params.min_p == 0:
        return False
    return -params.temperature * log(params.min_p) <= FURTHEST


def fits_shortlist(step: Step) -> bool:
    """Whether a step without rows that want more may have it."""
    return (
        0 < len(step.sampling) <= MAX_TOKENS
        and not step.masked
        and all(is_bounded(request.params) for request in step.sampling)
    )
