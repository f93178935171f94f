"""Attention over a paged KV cache, with sinks and an optional sliding window."""

from dataclasses import dataclass

import torch
from torch import Tensor

from haast.ops.dispatch import Op

MAX_SCORES = 1 << 26
"""Elements of the score matrix that the reference holds at a time (256 MB in fp32)"""


@dataclass(frozen=True)
class StepMeta:
    """Which requests a step computes and where their keys and values live.

    One instance a step, shared by all layers. Two requests with 3 and 1 new tokens and 0 and 130
    cached ones, pages of 128: cu_seqlens_q [0, 3, 4], kv_lens [3, 131],
    page_table [[7, 0], [2, 5]], positions [0, 1, 2, 130], slot_mapping [896, 897, 898, 642].
    """

    positions: Tensor
    """[T] int64, absolute position of each new token"""
    slot_mapping: Tensor
    """[T] int64, page * page_size + offset where its key and value are written"""
    cu_seqlens_q: Tensor
    """[B + 1] int32, prefix sum of new tokens per request"""
    kv_lens: Tensor
    """[B] int32, keys of each request once this step's are written"""
    page_table: Tensor
    """[B, max_pages] int32, pages of each request in order; unused entries are 0"""


def kv_write_reference(
    k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor
) -> None:
    """Store new keys and values in their slots.

    k, v              [T, Hkv, D]
    k_cache, v_cache  [num_pages, page_size, Hkv, D], written in place
    slot_mapping      [T] int64
    """
    k_cache.flatten(0, 1)[slot_mapping] = k
    v_cache.flatten(0, 1)[slot_mapping] = v


def attention_reference(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sinks: Tensor, meta: StepMeta, window: int | None
) -> Tensor:
    """Causal softmax attention; a sink logit per head joins the denominator only.

    q                 [T, Hq, D] bf16 or fp32; query head h reads kv head h // (Hq / Hkv)
    k_cache, v_cache  [num_pages, page_size, Hkv, D], this step's keys already written
    sinks             [Hq]
    meta              StepMeta; its lengths are read on the host (a device sync)
    window            keys visible to a query, itself included; None = all
    returns           [T, Hq, D], dtype of q; scores and sums in fp32, scale 1/sqrt(D)
    Source: openai/gpt-oss gpt_oss/torch/model.py, sdpa.
    """
    out = torch.empty_like(q)
    bounds = meta.cu_seqlens_q.tolist()
    for b, kv_len in enumerate(meta.kv_lens.tolist()):
        rows = slice(bounds[b], bounds[b + 1])
        pages = meta.page_table[b, : -(-kv_len // k_cache.shape[1])]
        k = k_cache[pages].flatten(0, 1)[:kv_len]
        v = v_cache[pages].flatten(0, 1)[:kv_len]
        out[rows] = _attend(q[rows], k, v, sinks, window)
    return out


def _attend(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int | None) -> Tensor:
    """One request: the last len(q) of len(k) positions are queries."""
    seen = visible(len(q), len(k), window, q.device)
    block = max(1, MAX_SCORES // (q.shape[1] * len(k)))
    parts = zip(torch.split(q, block), torch.split(seen, block), strict=True)
    return torch.cat([_attend_block(rows, k, v, sinks, mask) for rows, mask in parts])


def _attend_block(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, seen: Tensor) -> Tensor:
    num_q, num_heads, head_dim = q.shape
    num_kv_heads = k.shape[1]
    grouped = q.float().view(num_q, num_kv_heads, num_heads // num_kv_heads, head_dim)
    scores = torch.einsum("qhgd,khd->hgqk", grouped, k.float()) * head_dim**-0.5
    scores.masked_fill_(~seen, float("-inf"))
    sink_column = sinks.float().view(num_kv_heads, -1, 1, 1).expand(-1, -1, num_q, 1)
    weights = torch.cat((scores, sink_column), dim=-1).softmax(-1)[..., :-1]
    return torch.einsum("hgqk,khd->qhgd", weights, v.float()).reshape(q.shape).to(q.dtype)


def visible(num_q: int, num_kv: int, window: int | None, device: torch.device) -> Tensor:
    """[num_q, num_kv] bool: which keys the last num_q positions may look at."""
    query = torch.arange(num_kv - num_q, num_kv, device=device)[:, None]
    key = torch.arange(num_kv, device=device)[None, :]
    seen = key <= query
    return seen if window is None else seen & (key > query - window)


kv_write = Op("kv_write", kv_write_reference)
attention = Op("attention", attention_reference)
