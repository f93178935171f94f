"""Arguments of the ops around the matmuls: normalising, sampling and what comes before that."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from haast.config import ModelConfig
from haast.ops import Masks, Penalties, Sampling, empty_history, shadow_of
from haast.ops.shortlist.cuda_scan import MAX_TOKENS as MAX_SHORTLISTED

if TYPE_CHECKING:
    from haast.bench.cases import Draw

EPS = 1e-5
LOGIT_STD = 3.0
WEIGHT_STD = 0.02


def settings(
    num_rows: int,
    device: torch.device,
    *,
    temperature: float = 1.0,
    top_k: int = 1 << 20,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Sampling:
    """The same for all rows, whose seeds are 0, 1, ... and positions 100; by default no filter."""

    def all_rows(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.full((num_rows,), value, dtype=dtype, device=device)

    return Sampling(
        temperature=all_rows(temperature),
        top_k=all_rows(top_k, torch.int32),
        top_p=all_rows(top_p),
        min_p=all_rows(min_p),
        seed=torch.arange(num_rows, device=device),
        position=all_rows(100, torch.int32),
    )


def _rms_norm(draw: "Draw", config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    return draw.normal(num_tokens, config.hidden_size), draw.normal(config.hidden_size), EPS


def _add_rms_norm(draw: "Draw", config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    x, weight, eps = _rms_norm(draw, config, num_tokens)
    return x, draw.normal(*x.shape), weight, eps


def _linear(draw: "Draw", config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    """Of queries, keys and values."""
    x = draw.normal(num_tokens, config.hidden_size)
    weight = draw.normal(config.qkv_size, config.hidden_size, std=WEIGHT_STD)
    return x, weight, draw.normal(config.qkv_size)


def _sample(draw: "Draw", config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    logits = draw.normal(num_tokens, config.vocab_size, std=LOGIT_STD)
    return logits, settings(num_tokens, draw.device)


def _shortlist(draw: "Draw", config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    """Greedy, of so many tokens as it is for at most."""
    x = draw.normal(min(num_tokens, MAX_SHORTLISTED), config.hidden_size)
    weight = draw.normal(config.vocab_size, config.hidden_size, std=WEIGHT_STD)
    return x, weight, shadow_of(weight), settings(len(x), draw.device, temperature=0.0)


def _adjust_logits(draw: "Draw", config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    """Every row has penalties, though it has seen nothing, and a mask that allows nothing."""
    vocab = config.vocab_size
    rows = torch.arange(num_tokens, dtype=torch.int32, device=draw.device)
    ones = torch.ones(num_tokens, device=draw.device)
    penalties = Penalties(empty_history(num_tokens, vocab, draw.device), rows, ones, ones, ones)
    words = torch.zeros(num_tokens, -(-vocab // 32), dtype=torch.int32, device=draw.device)
    logits = draw.normal(num_tokens, vocab, std=LOGIT_STD)
    return logits, penalties, Masks(words, rows), None


def _count_tokens(draw: "Draw", config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    rows = torch.arange(num_tokens, device=draw.device)
    history = empty_history(num_tokens, config.vocab_size, draw.device)
    return history, rows.to(torch.int32), rows


SMALL_BUILDERS = {
    "rms_norm": _rms_norm,
    "add_rms_norm": _add_rms_norm,
    "linear": _linear,
    "sample": _sample,
    "shortlist": _shortlist,
    "adjust_logits": _adjust_logits,
    "count_tokens": _count_tokens,
}
"""Op -> positional arguments for T tokens or rows"""
