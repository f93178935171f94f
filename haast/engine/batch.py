"""Requests -> the tensors one step runs on."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from haast.engine.request import Request
from haast.model.kv_cache import PAGE_SIZE
from haast.ops import Sampling, StepMeta


def step_tensors(
    requests: Sequence[Request], chunk: int, device: torch.device
) -> tuple[Tensor, StepMeta]:
    """Token ids [T] int64 and metadata of the requests' next tokens, at most `chunk` of each."""
    pending = [request.pending_ids(chunk) for request in requests]
    positions = [
        range(request.num_computed, request.num_computed + len(ids))
        for request, ids in zip(requests, pending, strict=True)
    ]
    slots = [
        request.pages[position // PAGE_SIZE] * PAGE_SIZE + position % PAGE_SIZE
        for request, where in zip(requests, positions, strict=True)
        for position in where
    ]
    offs = [0]
    for ids in pending:
        offs.append(offs[-1] + len(ids))
    widest = max(len(request.pages) for request in requests)
    table = [request.pages + [0] * (widest - len(request.pages)) for request in requests]
    meta = StepMeta(
        positions=torch.tensor([p for where in positions for p in where], device=device),
        slot_mapping=torch.tensor(slots, device=device),
        cu_seqlens_q=torch.tensor(offs, dtype=torch.int32, device=device),
        kv_lens=torch.tensor([w.stop for w in positions], dtype=torch.int32, device=device),
        page_table=torch.tensor(table, dtype=torch.int32, device=device),
    )
    return torch.tensor([i for ids in pending for i in ids], device=device), meta


def sampling_tensors(
    requests: Sequence[Request], vocab_size: int, device: torch.device
) -> Sampling:
    """How each request's next token is drawn."""
    params = [request.params for request in requests]
    top_k = [min(p.top_k or vocab_size, vocab_size) for p in params]
    # the same 64 bits as a signed number
    seeds = [request.seed - ((request.seed >> 63) << 64) for request in requests]
    positions = [request.num_tokens for request in requests]
    floats = partial(torch.tensor, dtype=torch.float32, device=device)
    ints = partial(torch.tensor, dtype=torch.int32, device=device)
    return Sampling(
        temperature=floats([p.temperature for p in params]),
        top_k=ints(top_k),
        top_p=floats([p.top_p for p in params]),
        min_p=floats([p.min_p for p in params]),
        seed=torch.tensor(seeds, device=device),
        position=ints(positions),
    )
