"""What attention means, in plain torch."""

import torch
from torch import Tensor

from haast.ops.attention.meta import StepMeta

MAX_SCORES = 1 << 26
"""Elements of the score matrix that is held at a time (256 MB in fp32)"""


def attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sinks: Tensor, meta: StepMeta, window: int | None
) -> Tensor:
    """Causal softmax attention; a sink logit per head joins the denominator only.

    q                 [T, Hq, D] bf16 or fp32; query head h reads kv head h // (Hq / Hkv)
    k_cache, v_cache  [num_pages, Hkv, page_size, D], this step's keys already written;
                      bf16, fp32 or float8_e4m3fn, read as numbers without a scale
    sinks             [Hq]
    meta              StepMeta; the reference reads its lengths on the host (a device sync)
    window            keys visible to a query, itself included, in the pages of
                      meta.window_page_table; None = all, in the pages of meta.page_table
    returns           [T, Hq, D], dtype of q; scores and sums in fp32, scale 1/sqrt(D)
    Source: openai/gpt-oss gpt_oss/torch/model.py, sdpa.
    """
    out = torch.zeros_like(q)
    bounds = meta.cu_seqlens_q.tolist()
    for b, kv_len in enumerate(meta.kv_lens.tolist()):
        rows = slice(bounds[b], bounds[b + 1])
        if kv_len == 0:
            continue
        first = _first_key(kv_len, bounds[b + 1] - bounds[b], window)
        pages = meta.pages_of(window)[b]
        k, v = (_read(cache, pages, first, kv_len) for cache in (k_cache, v_cache))
        out[rows] = _attend(q[rows], k, v, sinks, window)
    return out


def _first_key(kv_len: int, num_q: int, window: int | None) -> int:
    """The first key that any query of a request sees."""
    return 0 if window is None else max(0, kv_len - num_q - window + 1)


def _read(cache: Tensor, pages: Tensor, first: int, last: int) -> Tensor:
    """Positions [first, last) of a request: [last - first, Hkv, D]; no other page is touched."""
    page_size = cache.shape[2]
    begin = first // page_size
    held = cache[pages[begin : -(-last // page_size)]].transpose(1, 2).flatten(0, 1)
    return held[first - begin * page_size : last - begin * page_size]


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
