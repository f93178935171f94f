"""Requests with one query each: KV split into chunks, then merged. See cuda/attention_decode.cu."""

import torch
from torch import Tensor

from haast.cuda.launcher import launch, multiprocessors
from haast.cuda.tensor_map import page_map
from haast.ops.attention.check import MAX_REQUESTS
from haast.ops.attention.meta import StepMeta

DECODE = "attention_decode"
MERGE = "attention_merge"
SYMBOL = "attention_decode_mma"
EVERYTHING = 1 << 30
"""The window of a layer that has none, to the kernels"""
MOST_CHUNKS = 32
"""of a request, however long it is"""
_LEAST_CHUNK = 2
"""pages"""
_THREADS = 160
_SHARED_BYTES = (
    6 * (16384 + 1024) + 4 * 8 * 68 * 4 + 2 * 4 * 8 * 4 + 12 * 8 + 4 * (MAX_REQUESTS + 1)
)
_MERGE_WARPS = 8


def num_chunks(meta: StepMeta, window: int | None) -> int:
    """Into how many chunks the longest request that fits the page table is cut."""
    if window is not None:
        return 1
    return min(MOST_CHUNKS, max(1, -(-meta.page_table.shape[1] // _LEAST_CHUNK)))


def symbols(meta: StepMeta, window: int | None) -> tuple[str, ...]:
    """CUDA kernels of `decode`, in order."""
    if meta.num_decodes == 0:
        return ()
    return (SYMBOL, MERGE) if num_chunks(meta, window) > 1 else (SYMBOL,)


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
    table, chunks = meta.pages_of(window), num_chunks(meta, window)
    part = lse = None
    if chunks > 1:
        part = torch.empty(num_requests, num_heads, chunks, q.shape[2], device=q.device)
        lse = torch.empty(num_requests, num_heads, chunks, device=q.device)
    sizes = (num_requests, k_cache.shape[1], table.shape[1], window or EVERYTHING)
    launch(
        DECODE,
        SYMBOL,
        grid=multiprocessors(q.device),
        block=_THREADS,
        shared_bytes=_SHARED_BYTES,
        args=(
            *(page_map(k_cache), page_map(v_cache), q, meta.kv_lens, table, sinks, out),
            *(part, lse, *sizes, MOST_CHUNKS if chunks > 1 else 1, chunks),
        ),
    )
    if chunks > 1:
        launch(
            MERGE,
            MERGE,
            grid=-(-num_requests * num_heads // _MERGE_WARPS),
            block=32 * _MERGE_WARPS,
            shared_bytes=0,
            args=(part, lse, meta.kv_lens, sinks, out, num_requests, num_heads, chunks),
        )
