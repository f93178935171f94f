"""Requests with one query each: pages in splits, then merged. See cuda/attention_decode.cu."""

import torch
from torch import Tensor

from haast.cuda.launcher import launch, multiprocessors
from haast.cuda.tensor_map import page_map
from haast.ops.attention.check import MAX_REQUESTS, of_cache
from haast.ops.attention.meta import StepMeta

DECODE = "attention_decode"
MERGE = "attention_merge"
SYMBOL = "attention_decode_mma"
EVERYTHING = 1 << 30
"""The window of a layer that has none, to the kernels"""
_MAX_SPLITS = 32
"""of a head, however long it is"""
_LEAST_SPLIT = 2
"""pages"""
_SM_CTAS = 2
"""of a launch: 64 requests of 4096 keys take 202-210 us, with one CTA an SM 236 us (H100)"""
_LONE_REQUESTS = 2
"""So few leave most CTAs without work; with one an SM the next kernel starts early: 3 % a step"""
_THREADS = 160
_WARP_KEYS = 32
_SUMS = 4 * 8 * (68 + 2) * 4
_MERGE_WARPS = 8


def num_splits(meta: StepMeta, window: int | None) -> int:
    """Into how many splits a head of the longest request that fits the page table may be cut."""
    pages = meta.page_table.shape[1]
    if window is not None or pages <= _LEAST_SPLIT:
        return 1
    return min(_MAX_SPLITS, -(-pages // _LEAST_SPLIT) + 1)


def symbols(meta: StepMeta, window: int | None, cache: Tensor) -> tuple[str, ...]:
    """CUDA kernels of `decode`, in order."""
    if meta.num_decodes == 0:
        return ()
    first = of_cache(SYMBOL, cache)
    return (first, MERGE) if num_splits(meta, window) > 1 else (first,)


def _shared_bytes(cache: Tensor) -> int:
    """A ring of as many bytes of pages in either format, its barriers, sums, a list of requests
    and the number of CTAs that share it."""
    stages = 8 // cache.element_size()
    ring = stages * (8192 * cache.element_size() + 1024 + 2 * 8)
    return ring + _SUMS + 4 * (MAX_REQUESTS + 2)


def decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    sinks: Tensor,
    meta: StepMeta,
    window: int | None,
    out: Tensor,
) -> None:
    """Results of the first meta.num_decodes requests into their rows of out [T, Hq, D]."""
    num_requests, num_heads = meta.num_decodes, q.shape[1]
    if num_requests == 0:
        return
    table, splits = meta.pages_of(window), num_splits(meta, window)
    part = lse = num_parts = None
    if splits > 1:
        num_parts = meta.kv_lens.new_empty(num_requests, k_cache.shape[1])
        part = torch.empty(num_requests, num_heads, splits, q.shape[2], device=q.device)
        lse = torch.empty(num_requests, num_heads, splits, device=q.device)
    sizes = (num_requests, k_cache.shape[1], table.shape[1], window or EVERYTHING)
    launch(
        DECODE,
        of_cache(SYMBOL, k_cache),
        grid=(1 if num_requests <= _LONE_REQUESTS else _SM_CTAS) * multiprocessors(q.device),
        block=_THREADS,
        shared_bytes=_shared_bytes(k_cache),
        args=(
            *(page_map(k_cache, _WARP_KEYS), page_map(v_cache, _WARP_KEYS)),
            *(q, meta.kv_lens, table, sinks, out),
            *(part, lse, num_parts, *sizes, splits),
        ),
    )
    if splits > 1:
        launch(
            MERGE,
            MERGE,
            grid=-(-num_requests * num_heads // _MERGE_WARPS),
            block=32 * _MERGE_WARPS,
            shared_bytes=0,
            args=(part, lse, num_parts, sinks, out, num_requests, num_heads, splits),
        )
