"""What the model thought of a token and of its rivals."""

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 22
"""Logits that are held in fp32 at a time (16 MB)"""


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
    rows = max(1, CHUNK_ELEMENTS // vocab)
    for first in range(0, num_rows, rows):
        part = logits[first : first + rows].float()
        total[first : first + rows] = part.logsumexp(-1, keepdim=True)
    top, top_ids = logits.topk(num_top, dim=-1)
    chosen = logits.gather(1, token_ids[:, None])
    return (chosen.float() - total).squeeze(1), top_ids, top.float() - total
