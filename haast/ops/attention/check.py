"""What attention's kernels ask of their arguments, said before anything is launched."""

import torch
from torch import Tensor

from haast.ops.attention.meta import StepMeta
from haast.ops.check import check_devices, check_tensor
from haast.ops.hopper import why_no_kernels

HEAD_DIM = 64
GROUP_HEADS = 8
PAGE_SIZE = 128
CACHE_DTYPES = (torch.bfloat16, torch.float8_e4m3fn)
MAX_REQUESTS = 512
MAX_ROWS = 2**31
"""positions of all pages of a pool, times heads"""


def check_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sinks: Tensor, meta: StepMeta, window: int | None
) -> None:
    """Arguments of attention; raises ValueError that names what differs from the contract."""
    check_tensor("q", q, q.dtype, None, None, None)
    num_heads, head_dim = q.shape[1:]
    check_tensor("k_cache", k_cache, k_cache.dtype, None, None, None, head_dim)
    check_tensor("v_cache", v_cache, k_cache.dtype, *k_cache.shape)
    check_tensor("sinks", sinks, sinks.dtype, num_heads)
    if k_cache.shape[1] == 0 or num_heads % k_cache.shape[1]:
        raise ValueError(
            f"q must have a multiple of the cache's {k_cache.shape[1]} heads; got {num_heads}"
        )
    if window is not None and window < 1:
        raise ValueError(f"window must be None or at least 1; got {window}")
    check_meta(meta, len(q))
    check_devices(q=q, k_cache=k_cache, v_cache=v_cache, sinks=sinks, positions=meta.positions)


def check_meta(meta: StepMeta, num_tokens: int) -> None:
    """Raises ValueError for a field of another dtype, shape or device, or an impossible count."""
    num_requests = len(meta.kv_lens)
    check_tensor("positions", meta.positions, torch.int32, num_tokens)
    check_tensor("cu_seqlens_q", meta.cu_seqlens_q, torch.int32, num_requests + 1)
    check_tensor("kv_lens", meta.kv_lens, torch.int32, num_requests)
    check_tensor("page_table", meta.page_table, torch.int32, num_requests, None)
    width = meta.page_table.shape[1]
    check_tensor("window_page_table", meta.window_page_table, torch.int32, num_requests, width)
    if not 0 <= meta.num_decodes <= min(num_requests, num_tokens):
        raise ValueError(
            f"num_decodes must be 0..{min(num_requests, num_tokens)}; got {meta.num_decodes}"
        )
    check_devices(
        positions=meta.positions,
        cu_seqlens_q=meta.cu_seqlens_q,
        kv_lens=meta.kv_lens,
        page_table=meta.page_table,
        window_page_table=meta.window_page_table,
    )


def why_not_this_network(num_heads: int, num_kv_heads: int, head_dim: int) -> str | None:
    """Why no attention kernel serves a network with such heads, or None."""
    if head_dim != HEAD_DIM:
        return f"takes heads of {HEAD_DIM}, got {head_dim}"
    if num_heads != GROUP_HEADS * num_kv_heads:
        return f"takes {GROUP_HEADS} query heads a kv head, got {num_heads} for {num_kv_heads}"
    return None


def of_cache(symbol: str, cache: Tensor) -> str:
    """The CUDA kernel among the two of that name that takes this cache."""
    return f"{symbol}_fp8" if cache.dtype == torch.float8_e4m3fn else symbol


def why_rejected(q: Tensor, k_cache: Tensor, sinks: Tensor, meta: StepMeta) -> str | None:
    """Why the kernels cannot serve a call that keeps the contract, or None."""
    if (reason := why_cache_rejected(k_cache)) is not None:
        return reason
    for name, value in (("q", q), ("sinks", sinks)):
        if value.dtype != torch.bfloat16:
            return f"takes {name} in torch.bfloat16, got {value.dtype}"
    if (reason := why_not_this_network(q.shape[1], k_cache.shape[1], q.shape[2])) is not None:
        return reason
    if len(meta.kv_lens) > MAX_REQUESTS:
        return f"takes at most {MAX_REQUESTS} requests, got {len(meta.kv_lens)}"
    return why_no_kernels(q.device)


def why_cache_rejected(cache: Tensor) -> str | None:
    """Why no kernel reads or writes such pages, or None."""
    page_size, head_dim = cache.shape[2:]
    if cache.dtype not in CACHE_DTYPES:
        return f"takes a cache in {' or '.join(map(str, CACHE_DTYPES))}, got {cache.dtype}"
    if head_dim != HEAD_DIM:
        return f"takes heads of {HEAD_DIM}, got {head_dim}"
    if page_size != PAGE_SIZE:
        return f"takes pages of {PAGE_SIZE}, got {page_size}"
    if cache.shape[:3].numel() >= MAX_ROWS:
        return f"takes fewer than {MAX_ROWS} positions times heads, got {cache.shape[:3].numel()}"
    return None
