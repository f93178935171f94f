"""Which steps get their logits by way of a shadow head. Pure Python.

All of a step's rows must be such that few tokens matter to them, which their settings tell: greedy
ones, those with a small top_k, those with a min_p and no top_p before it. Whoever wants more of the
logits than a token (log-probabilities, penalties, biases, masks) gets all of them, as do rows drawn
from all tokens.
"""

from haast.engine.sampling_params import SamplingParams
from haast.engine.step import Step

MOST_ROWS = 16
"""That kernels take"""
MOST_TOP_K = 64
"""The kernel knows one token of each of 132 groups of rows, so that k of them bound the k-th"""
LEAST_MIN_P = 0.01
"""Below it too many tokens are left"""


def is_bounded(params: SamplingParams) -> bool:
    """Whether few tokens matter to a row that is drawn like that."""
    if params.temperature == 0 or (params.top_k is not None and params.top_k <= MOST_TOP_K):
        return True
    return params.top_p == 1 and params.min_p >= LEAST_MIN_P


def fits_shortlist(step: Step) -> bool:
    """Whether a step without rows that want more may have it."""
    return (
        0 < len(step.sampling) <= MOST_ROWS
        and not step.masked
        and all(is_bounded(request.params) for request in step.sampling)
    )
