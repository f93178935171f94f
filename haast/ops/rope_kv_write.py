"""Between projection and attention: rotate queries and keys, put keys and values in slots."""

import torch
from torch import Tensor

from haast.cuda.launcher import launch
from haast.ops.attention.check import of_cache, why_cache_rejected
from haast.ops.check import check_devices, check_tensor
from haast.ops.dispatch import Kernel, Op
from haast.ops.hopper import why_no_kernels
from haast.ops.rope import rotate

SYMBOL = "rope_kv_write"
_THREADS = 256
_HEAD_THREADS = 4


def reference(
    qkv: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_mapping: Tensor,
) -> Tensor:
    """Rotate queries and keys by their position; store keys and values in their slots.

    qkv               [T, (Hq + 2 Hkv) D] bf16 or fp32: heads of q, then of k, then of v
    positions         [T] int32
    cos, sin          [max_length, D/2] fp32 from `rope_tables`, rounded to qkv's dtype before use
    k_cache, v_cache  [num_pages, Hkv, page_size, D], written in place; in float8_e4m3fn a value is
                      rounded once more, from qkv's dtype to the nearest, ties to even, and without
                      a scale: beyond +-448 (infinity too) it becomes +-448, below 2^-10 zero
    slot_mapping      [T] int32, page * page_size + offset; -1: this token is written nowhere
    returns           q [T, Hq, D], rotated (`haast.ops.rope.rotate`)
    """
    num_kv_heads, page_size, head_dim = k_cache.shape[1:]
    heads = qkv.view(len(qkv), qkv.shape[1] // head_dim, head_dim)
    num_heads = heads.shape[1] - 2 * num_kv_heads
    q, k, v = torch.split(heads, [num_heads, num_kv_heads, num_kv_heads], dim=1)
    is_kept = slot_mapping >= 0
    slots = slot_mapping[is_kept].long()
    page, offset = slots // page_size, slots % page_size
    k_cache[page, :, offset] = _cached(rotate(k, positions, cos, sin)[is_kept], k_cache.dtype)
    v_cache[page, :, offset] = _cached(v[is_kept], v_cache.dtype)
    return rotate(q, positions, cos, sin)


def _cached(x: Tensor, dtype: torch.dtype) -> Tensor:
    """As the cache holds it; torch's own conversion to float8_e4m3fn need not saturate."""
    if dtype == torch.float8_e4m3fn:
        most = torch.finfo(dtype).max
        x = x.float().clamp(-most, most)
    return x.to(dtype)


def _check(
    qkv: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_mapping: Tensor,
) -> None:
    """Raises ValueError that names what differs from the contract."""
    check_tensor("qkv", qkv, qkv.dtype, None, None)
    check_tensor("k_cache", k_cache, k_cache.dtype, None, None, None, None)
    check_tensor("v_cache", v_cache, k_cache.dtype, *k_cache.shape)
    num_kv_heads, _, head_dim = k_cache.shape[1:]
    check_tensor("positions", positions, torch.int32, len(qkv))
    check_tensor("slot_mapping", slot_mapping, torch.int32, len(qkv))
    check_tensor("cos", cos, torch.float32, None, head_dim // 2)
    check_tensor("sin", sin, torch.float32, *cos.shape)
    if qkv.shape[1] % head_dim or qkv.shape[1] <= 2 * num_kv_heads * head_dim:
        raise ValueError(
            f"qkv must have heads of {head_dim}, more than {2 * num_kv_heads} of them; "
            f"got {qkv.shape[1]} columns"
        )
    check_devices(
        qkv=qkv,
        positions=positions,
        cos=cos,
        sin=sin,
        k_cache=k_cache,
        v_cache=v_cache,
        slot_mapping=slot_mapping,
    )


def _rejects(
    qkv: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_mapping: Tensor,
) -> str | None:
    _check(qkv, positions, cos, sin, k_cache, v_cache, slot_mapping)
    if qkv.dtype != torch.bfloat16:
        return f"takes qkv in torch.bfloat16, got {qkv.dtype}"
    return why_cache_rejected(k_cache) or why_no_kernels(qkv.device)


def _symbols(
    qkv: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_mapping: Tensor,
) -> tuple[str, ...]:
    return (of_cache(SYMBOL, k_cache),) if len(qkv) else ()


def _run(
    qkv: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_mapping: Tensor,
) -> Tensor:
    num_tokens, num_kv_heads, head_dim = len(qkv), k_cache.shape[1], k_cache.shape[3]
    all_heads = qkv.shape[1] // head_dim
    num_heads = all_heads - 2 * num_kv_heads
    q = torch.empty(num_tokens, num_heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    if num_tokens:
        launch(
            SYMBOL,
            of_cache(SYMBOL, k_cache),
            grid=-(-num_tokens * all_heads * _HEAD_THREADS // _THREADS),
            block=_THREADS,
            shared_bytes=0,
            args=(
                *(qkv, positions, cos, sin, k_cache, v_cache, slot_mapping, q),
                *(num_tokens, num_heads, num_kv_heads),
            ),
        )
    return q


CUDA = Kernel(
    "cuda", _run, _rejects, _symbols, because="1.3 us at 1 token, 2.9 TB/s at 8192 on an H100"
)
rope_kv_write = Op("rope_kv_write", reference, (CUDA,))
