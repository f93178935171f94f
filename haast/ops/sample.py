"""From logits to the next token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from haast.ops.dispatch import Op


@dataclass(frozen=True)
class Sampling:
    """How each row of a batch is sampled; all tensors [B] on the logits' device."""

    temperature: Tensor
    """fp32; 0 = greedy"""
    top_k: Tensor
    """int64; V keeps everything"""
    top_p: Tensor
    """fp32 in (0, 1]"""
    min_p: Tensor
    """fp32 in [0, 1]"""
    uniform: Tensor
    """fp64 in [0, 1), the row's random number"""


def sample_reference(logits: Tensor, sampling: Sampling) -> Tensor:
    """One token a row, by inverting the cumulative distribution over descending probability.

    logits    [B, V] fp32
    sampling  Sampling
    returns   [B] int64

    Temperature, then top-k, then top-p on what is left (the token that crosses the mark stays),
    then min-p relative to the most likely token; equal logits rank by token id.
    """
    greedy = sampling.temperature == 0
    ordered, ids = logits.double().sort(dim=-1, descending=True, stable=True)
    scaled = ordered / torch.where(greedy, 1.0, sampling.temperature.double())[:, None]
    probs = _filtered(scaled.softmax(-1), sampling)
    cumulative = probs.cumsum(-1)
    target = sampling.uniform[:, None] * cumulative[:, -1:]
    rank = (cumulative <= target).sum(-1, keepdim=True).clamp(max=logits.shape[1] - 1)
    rank = torch.where(greedy[:, None], 0, rank)
    return ids.gather(1, rank).squeeze(1)


def _filtered(probs: Tensor, sampling: Sampling) -> Tensor:
    """Descending probabilities [B, V] with those cut that the sampling settings exclude."""
    rank = torch.arange(probs.shape[1], device=probs.device)
    probs = probs.masked_fill(rank >= sampling.top_k[:, None], 0.0)
    probs = probs / probs.sum(-1, keepdim=True)
    before = probs.cumsum(-1) - probs
    is_past = (before >= sampling.top_p.double()[:, None]) & (rank > 0)
    probs = probs.masked_fill(is_past, 0.0)
    return probs.masked_fill(probs < sampling.min_p.double()[:, None] * probs[:, :1], 0.0)


sample = Op("sample", sample_reference)
