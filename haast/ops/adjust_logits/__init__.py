"""Adjusting logits: contracts in reference.py, kernels in preference order here."""

from haast.ops.adjust_logits import cuda_adjust, reference
from haast.ops.adjust_logits.history import empty_history, reset_history
from haast.ops.adjust_logits.reference import Biases, Masks, Penalties
from haast.ops.dispatch import Op

adjust_logits = Op("adjust_logits", reference.adjust_logits, (cuda_adjust.ADJUST,))
count_tokens = Op("count_tokens", reference.count_tokens, (cuda_adjust.COUNT_TOKENS,))

__all__ = [
    "Biases",
    "Masks",
    "Penalties",
    "adjust_logits",
    "count_tokens",
    "empty_history",
    "reset_history",
]
