"""Between projection and attention: rotate queries and keys, put keys and values in slots."""

import torch
from torch import Tensor

from haast.ops.dispatch import Op
from haast.ops.rope import rotate


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
    k_cache, v_cache  [num_pages, Hkv, page_size, D], written in place
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
    k_cache[page, :, offset] = rotate(k, positions, cos, sin)[is_kept].to(k_cache.dtype)
    v_cache[page, :, offset] = v[is_kept].to(v_cache.dtype)
    return rotate(q, positions, cos, sin)


rope_kv_write = Op("rope_kv_write", reference)
