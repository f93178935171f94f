"""What users and grammars do to logits before a token is drawn."""

from dataclasses import dataclass

import torch
from torch import Tensor

COUNT = 0x7FFF
"""Bits of a history's element that count a token's occurrences in the output"""
IN_PROMPT = -0x8000
"""Its bit 15, the sign: the token occurs in the prompt"""


@dataclass(frozen=True)
class Penalties:
    """For tokens that a request has seen."""

    history: Tensor
    """[S, V] int16, a row a request that wants any: COUNT bits and IN_PROMPT; see history.py"""
    history_row: Tensor
    """[B] int32; -1 = no penalties"""
    repetition: Tensor
    """[B] fp32 above 0; divides positive logits of tokens of prompt or output, multiplies others"""
    presence: Tensor
    """[B] fp32, taken off the logits of tokens of the output"""
    frequency: Tensor
    """[B] fp32, the same for each time they occur in it"""


@dataclass(frozen=True)
class Masks:
    """Tokens that a grammar allows."""

    allowed: Tensor
    """[M, ceil(V / 32)] int32; bit i % 32 of word i // 32 is token i"""
    mask_row: Tensor
    """[B] int32; -1 = all tokens are allowed"""


@dataclass(frozen=True)
class Biases:
    """Numbers added to single logits; no row has a token twice."""

    row: Tensor
    """[N] int32 of the batch; -1 = this element does nothing"""
    token_id: Tensor
    """[N] int32"""
    value: Tensor
    """[N] fp32; -inf forbids the token"""


def adjust_logits(
    logits: Tensor, penalties: Penalties | None, masks: Masks | None, biases: Biases | None
) -> None:
    """Penalties, then masks, then biases, in place.

    logits     [B, V] bf16 or fp32; rows that want nothing keep their bits
    penalties  repetition, then frequency, then presence; in fp32, rounded once
    masks      what is not allowed becomes -inf
    biases     added in fp32, rounded once
    Sources: repetition, transformers' RepetitionPenaltyLogitsProcessor; presence and frequency, the
    OpenAI API. For kernels a ValueError says which argument is wrong.
    """
    if penalties is not None:
        _penalise(logits, penalties)
    if masks is not None:
        ids = torch.arange(logits.shape[1], device=logits.device)
        words = masks.allowed[masks.mask_row.clamp(min=0).long()][:, ids // 32]
        is_banned = (words >> (ids % 32) & 1 == 0) & (masks.mask_row >= 0)[:, None]
        logits.masked_fill_(is_banned, -torch.inf)
    if biases is not None:
        is_used = biases.row >= 0
        at = biases.row[is_used].long(), biases.token_id[is_used].long()
        logits[at] = (logits[at].float() + biases.value[is_used]).to(logits.dtype)


def _penalise(logits: Tensor, penalties: Penalties) -> None:
    rows = penalties.history_row
    history = penalties.history[rows.clamp(min=0).long()].int()
    history = history.masked_fill((rows < 0)[:, None], 0)
    count = history & COUNT
    x, repetition = logits.float(), penalties.repetition[:, None]
    x = torch.where(history != 0, torch.where(x > 0, x / repetition, x * repetition), x)
    x = x - penalties.frequency[:, None] * count
    logits.copy_(x - torch.where(count > 0, penalties.presence[:, None], 0.0))


def count_tokens(history: Tensor, history_row: Tensor, token_ids: Tensor) -> None:
    """Each row's newest token, counted in its history, in place.

    history      [S, V] int16
    history_row  [B] int32; -1 = none, no other row twice
    token_ids    [B] int64
    A count stays at COUNT once it is there.
    """
    at = history_row.clamp(min=0).long(), token_ids
    grows = (history_row >= 0) & (history[at] & COUNT != COUNT)
    history.index_put_(at, grows.to(history.dtype), accumulate=True)
