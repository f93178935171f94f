"""Chunks of queries, also of one: tiles of 24 queries by wgmma. See cuda/attention_prefill.cu."""

from torch import Tensor

from haast.cuda.launcher import launch, multiprocessors
from haast.cuda.tensor_map import page_map, query_map
from haast.ops.attention.check import GROUP_HEADS, MAX_REQUESTS, PAGE_SIZE, of_cache
from haast.ops.attention.cuda_decode import EVERYTHING
from haast.ops.attention.meta import StepMeta

PREFILL = "attention_prefill"
SYMBOL = "attention_prefill_wgmma"
TILE_QUERIES = 24
_THREADS = 512
_QUERIES = 2 * TILE_QUERIES * GROUP_HEADS * 128
_PAGES = 2 * 3 * 16384
_BARRIERS = 17 * 8
_SHARED_BYTES = _QUERIES + _PAGES + _BARRIERS + 4 * (3 * MAX_REQUESTS + 2)
_PACKED_BYTES = -(-_SHARED_BYTES // 1024) * 1024 + 4 * (8192 + 2 * 8 + 8)
"""Of a cache in float8_e4m3fn: a ring of its pages besides"""


def symbols(meta: StepMeta, first: int, cache: Tensor) -> tuple[str, ...]:
    """CUDA kernels of `prefill`, in order."""
    return (of_cache(SYMBOL, cache),) if len(meta.kv_lens) > first else ()


def prefill(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    sinks: Tensor,
    meta: StepMeta,
    window: int | None,
    *,
    first: int,
    out: Tensor,
) -> None:
    """Results of the requests from `first` on into their rows of out [T, Hq, D]."""
    num_requests = len(meta.kv_lens) - first
    if num_requests == 0:
        return
    table = meta.pages_of(window)
    pages = (page_map(k_cache, PAGE_SIZE), page_map(v_cache, PAGE_SIZE))
    maps = (query_map(q, GROUP_HEADS, TILE_QUERIES), *pages)
    launch(
        PREFILL,
        of_cache(SYMBOL, k_cache),
        grid=multiprocessors(q.device),
        block=_THREADS,
        shared_bytes=_SHARED_BYTES if k_cache.element_size() == 2 else _PACKED_BYTES,
        args=(
            *(*maps, meta.cu_seqlens_q[first:], meta.kv_lens[first:], table[first:], sinks, out),
            *(num_requests, k_cache.shape[1], table.shape[1], window or EVERYTHING),
        ),
    )
