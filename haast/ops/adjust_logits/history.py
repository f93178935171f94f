"""Which tokens a request has seen, on the device."""

import torch
from torch import Tensor

from haast.ops.adjust_logits.reference import COUNT, IN_PROMPT


def empty_history(num_rows: int, vocab_size: int, device: torch.device) -> Tensor:
    """[S, V] int16 of zeros: tokens of no request."""
    return torch.zeros(num_rows, vocab_size, dtype=torch.int16, device=device)


def reset_history(history: Tensor, row: int, prompt_ids: Tensor, output_ids: Tensor) -> None:
    """Begin a row anew, in place, for a request that has come this far; does not wait.

    history     [S, V] int16
    row         of history
    prompt_ids  [P] int64
    output_ids  [N] int64, tokens generated before (after a preemption there may be some)
    """
    counts = torch.zeros(history.shape[1], dtype=torch.int32, device=history.device)
    counts.index_add_(0, output_ids, torch.ones_like(output_ids, dtype=torch.int32))
    prompt = torch.zeros_like(counts).index_fill_(0, prompt_ids, IN_PROMPT)
    history[row] = (counts.clamp(max=COUNT) | prompt).to(history.dtype)
