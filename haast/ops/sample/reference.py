"""From logits to the next token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from haast.ops.sample.philox import uniform


@dataclass(frozen=True)
class Sampling:
    """How each row of a batch is sampled; all tensors [B] on the logits' device."""

    temperature: Tensor
    """fp32; 0 = greedy"""
    top_k: Tensor
    """int32, at least 1; V or more keeps everything"""
    top_p: Tensor
    """fp32 in (0, 1]"""
    min_p: Tensor
    """fp32 in [0, 1]"""
    seed: Tensor
    """int64, the bits of the request's seed in [0, 2^64)"""
    position: Tensor
    """int32, tokens before the one that is drawn; with the seed it makes the random number"""


def sample(logits: Tensor, sampling: Sampling) -> Tensor:
    """One token a row, by inverting the cumulative distribution over token ids.

    logits    [B, V] bf16 or fp32; NaN counts as -inf, +inf as the largest finite number
    sampling  Sampling
    returns   [B] int64

    Temperature, then top-k, then top-p on what is left (the token that crosses the mark stays),
    then min-p relative to the most likely token; equal logits rank by token id. What is kept stays
    in the order of token ids: the token is the first at which the sum of probabilities exceeds the
    row's random number times their total. Greedy rows give the lowest id of the largest logit, and
    so do rows that have only -inf. A row's token depends on nothing else in the batch.
    Exact up to the rounding of a kernel's weights to fp32: that matters where a random number,
    top_p or min_p lies so close to a boundary between tokens.
    """
    largest = torch.finfo(logits.dtype).max
    wide = logits.double().nan_to_num(nan=-torch.inf, posinf=largest, neginf=-torch.inf)
    best = wide.argmax(-1)
    is_greedy = (sampling.temperature == 0) | (wide.amax(-1) == -torch.inf)
    wide = wide.masked_fill(is_greedy[:, None], 0.0)
    wide = wide / torch.where(is_greedy, 1.0, sampling.temperature.double())[:, None]
    cumulative = (wide.softmax(-1) * _kept(wide, sampling)).cumsum(-1)
    target = uniform(sampling.seed, sampling.position)[:, None] * cumulative[:, -1:]
    return torch.where(is_greedy, best, (cumulative <= target).sum(-1))


def _kept(scaled: Tensor, sampling: Sampling) -> Tensor:
    """[B, V] bool, tokens that the settings do not exclude, from logits over temperature."""
    ordered, ids = scaled.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(scaled.shape[1], device=scaled.device)
    probs = ordered.softmax(-1).masked_fill(rank >= sampling.top_k[:, None], 0.0)
    probs = probs / probs.sum(-1, keepdim=True)
    before = probs.cumsum(-1) - probs
    is_kept = (before < sampling.top_p.double()[:, None]) | (rank == 0)
    is_kept &= probs >= sampling.min_p.double()[:, None] * probs[:, :1]
    return torch.zeros_like(is_kept).scatter(1, ids, is_kept & (probs > 0))
