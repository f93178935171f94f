"""Requests -> the tensors one step runs on."""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from haast.engine.request import Request
from haast.model.kv_cache import PAGE_SIZE
from haast.ops import Sampling, StepMeta


def step_tensors(
    requests: Sequence[Request], chunk: int, device: torch.device
) -> tuple[Tensor, StepMeta]:
    """Token ids [T] int64 and metadata of the requests' next tokens, at most `chunk` of each.

    Sliding layers use the same pages as full-attention layers.
    """

    def ints(values: Sequence[object]) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    pending = [request.pending_ids(chunk) for request in requests]
    positions = [
        range(request.num_computed, request.num_computed + len(ids))
        for request, ids in zip(requests, pending, strict=True)
    ]
    sizes = [len(ids) for ids in pending]
    num_decodes = next((b for b, size in enumerate(sizes) if size > 1), len(sizes))
    page_table, slot_mapping = ints(_page_rows(requests)), ints(_slots(requests, positions))
    meta = StepMeta(
        positions=ints([p for where in positions for p in where]),
        cu_seqlens_q=ints([0, *accumulate(sizes)]),
        kv_lens=ints([where.stop for where in positions]),
        page_table=page_table,
        slot_mapping=slot_mapping,
        window_page_table=page_table,
        window_slot_mapping=slot_mapping,
        num_decodes=num_decodes,
        max_query_len=max(sizes[num_decodes:], default=0),
    )
    return torch.tensor([i for ids in pending for i in ids], device=device), meta


def _slots(requests: Sequence[Request], positions: Sequence[range]) -> list[int]:
    """Where each new token's key and value go."""
    return [
        request.pages[position // PAGE_SIZE] * PAGE_SIZE + position % PAGE_SIZE
        for request, where in zip(requests, positions, strict=True)
        for position in where
    ]


def _page_rows(requests: Sequence[Request]) -> list[list[int]]:
    """Pages of each request, all rows of the same length."""
    widest = max(len(request.pages) for request in requests)
    return [request.pages + [0] * (widest - len(request.pages)) for request in requests]


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
