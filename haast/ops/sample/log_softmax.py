"""What the model thought of a token and of its rivals."""

import torch
from torch import Tensor
from torch.nn.functional import pad

PIECE_ROWS = 16
"""Rows that are looked at together, the last piece padded: torch sums and ranks by shape, so that a
row's bits and the order of its equal logits depend on nothing else"""


def logprobs(logits: Tensor, token_ids: Tensor, num_top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of the model's own probabilities: of raw logits, before temperature and filters.

    logits     [B, V] bf16 or fp32, not yet changed by `adjust_logits`
    token_ids  [B] int64
    num_top    how many of the most likely tokens, k, 0 to V
    returns    logprob [B], top_ids [B, k] int64 (most likely first), top_logprobs [B, k]; fp32
    Raises ValueError if num_top is out of range.
    """
    num_rows, vocab = logits.shape
    if not 0 <= num_top <= vocab:
        raise ValueError(f"num_top must be 0..{vocab}; got {num_top}")
    total = torch.empty(num_rows, 1, device=logits.device)
    top = logits.new_empty(num_rows, num_top)
    top_ids = token_ids.new_empty(num_rows, num_top)
    for first in range(0, num_rows, PIECE_ROWS):
        own = slice(first, min(first + PIECE_ROWS, num_rows))
        count = own.stop - first
        piece = pad(logits[own], (0, 0, 0, PIECE_ROWS - count))
        total[own] = piece.float().logsumexp(-1, keepdim=True)[:count]
        ranked = piece.topk(num_top, dim=-1)
        top[own], top_ids[own] = ranked.values[:count], ranked.indices[:count]
    chosen = logits.gather(1, token_ids[:, None])
    return (chosen.float() - total).squeeze(1), top_ids, top.float() - total
