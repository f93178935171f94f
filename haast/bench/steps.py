"""Steps of attention: many requests with one new token each, or one prompt."""

from functools import partial

import torch
from torch import Tensor

from haast.model.kv_cache import PAGE_SIZE
from haast.ops import StepMeta


def decode_step(device: torch.device, num_requests: int, kv_len: int) -> StepMeta:
    """Every request has kv_len keys in pages of its own and one query, the last of them."""
    offs = torch.arange(num_requests + 1, dtype=torch.int32, device=device)
    return _step(device, offs, num_requests, num_queries=1, kv_len=kv_len)


def prompt_step(device: torch.device, num_tokens: int) -> StepMeta:
    """One request whose tokens are all new."""
    offs = torch.arange(2, dtype=torch.int32, device=device) * num_tokens
    return _step(device, offs, 1, num_queries=num_tokens, kv_len=num_tokens)


def _step(
    device: torch.device, offs: Tensor, num_requests: int, num_queries: int, kv_len: int
) -> StepMeta:
    """Page i of request b is the one of that number in the order i, b: neighbours lie apart."""
    arange = partial(torch.arange, dtype=torch.int32, device=device)
    num_pages = -(-kv_len // PAGE_SIZE)
    table = arange(num_pages * num_requests).view(num_pages, num_requests)
    table = table.T.contiguous()
    positions = arange(kv_len - num_queries, kv_len).repeat(num_requests)
    pages = table[:, (kv_len - num_queries) // PAGE_SIZE :].repeat_interleave(PAGE_SIZE, 1)
    slots = pages[:, (kv_len - num_queries) % PAGE_SIZE :][:, :num_queries].flatten()
    slots = slots * PAGE_SIZE + positions % PAGE_SIZE
    is_decode = num_queries == 1
    return StepMeta(
        positions=positions,
        cu_seqlens_q=offs,
        kv_lens=torch.full_like(table[:, 0], kv_len),
        page_table=table,
        slot_mapping=slots,
        window_page_table=table,
        window_slot_mapping=slots,
        num_decodes=num_requests if is_decode else 0,
        max_query_len=0 if is_decode else num_queries,
    )
