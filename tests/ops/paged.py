"""Ragged batches over a paged cache, and attention written as loops in fp64."""

import math
from dataclasses import dataclass, replace
from itertools import accumulate

import torch

from haast.ops import StepMeta

from .pinned import normal


@dataclass
class Case:
    """What the op takes, and the same keys and values without pages."""

    q: torch.Tensor
    k_cache: torch.Tensor
    v_cache: torch.Tensor
    sinks: torch.Tensor
    meta: StepMeta
    dense: list

    @property
    def args(self):
        return self.q, self.k_cache, self.v_cache, self.sinks, self.meta


def make_case(
    lengths,
    page_size=4,
    heads=(6, 2),
    head_dim=5,
    dtype=torch.float32,
    window=None,
    cache_dtype=None,
):
    """Requests of (new tokens, cached tokens), decodes counted where they come first.

    Pages are shuffled, in both pools on their own; slots that no request has are NaN. Sliding
    layers' pages that left the window are another request's: their entries name a page of NaN.
    """
    counts = [-(-(new + cached) // page_size) for new, cached in lengths]
    sizes = [new for new, _ in lengths]
    dense = [
        tuple(normal(2, new + cached, heads[1], head_dim, seed=index + 1).to(cache_dtype or dtype))
        for index, (new, cached) in enumerate(lengths)
    ]
    table, stale = _deal(counts, seed=0)
    window_table, window_stale = _deal(counts, seed=1)
    caches = _fill(dense, table if window is None else window_table, page_size)
    if window is not None:
        _drop_stale(window_table, lengths, page_size, window, window_stale)
        _drop_stale(table, lengths, page_size, 1, stale)  # the wrong table would show
    num_decodes = next((b for b, new in enumerate(sizes) if new > 1), len(sizes))
    offs = [0, *accumulate(sizes)]
    meta = StepMeta(
        positions=_ints([p for new, cached in lengths for p in range(cached, cached + new)]),
        cu_seqlens_q=_ints(offs),
        kv_lens=_ints([new + cached for new, cached in lengths]),
        page_table=_ints(table),
        slot_mapping=_ints(_slots(lengths, table, page_size)),
        window_page_table=_ints(window_table),
        window_slot_mapping=_ints(_slots(lengths, window_table, page_size)),
        num_decodes=num_decodes,
        max_query_len=max(sizes[num_decodes:], default=0),
    )
    q = normal(offs[-1], heads[0], head_dim, dtype=dtype) * 2
    return Case(q, *caches, normal(heads[0], seed=99), meta, dense)


def row_by_row(meta):
    """The same tokens as decodes, each of its own: those of a request share its pages."""
    rows = torch.arange(len(meta.kv_lens)).to(meta.cu_seqlens_q.device)
    rows = rows.repeat_interleave(meta.cu_seqlens_q.diff().long())
    count = len(meta.positions)
    return replace(
        meta,
        cu_seqlens_q=torch.arange(count + 1, dtype=torch.int32, device=rows.device),
        kv_lens=meta.positions + 1,
        page_table=meta.page_table[rows].contiguous(),
        window_page_table=meta.window_page_table[rows].contiguous(),
        num_decodes=count,
        max_query_len=0,
    )


def _ints(values):
    return torch.tensor(values, dtype=torch.int32)


def _deal(counts, seed):
    """Shuffled pages of each request, rows padded with 0; and a page that nobody has."""
    generator = torch.Generator().manual_seed(seed)
    free = torch.randperm(sum(counts) + 2, generator=generator).tolist()
    widest = max(counts)
    rows = [[free.pop() for _ in range(count)] + [0] * (widest - count) for count in counts]
    return rows, free.pop()


def _fill(dense, table, page_size):
    """k and v caches [num_pages, Hkv, page_size, D]; NaN where nothing is."""
    num_pages = sum(-(-len(k) // page_size) for k, _ in dense) + 2
    _, num_kv_heads, head_dim = dense[0][0].shape
    shape = (2, num_pages, num_kv_heads, page_size, head_dim)
    caches = torch.full(shape, torch.nan, dtype=dense[0][0].dtype)
    for pair, pages in zip(dense, table, strict=True):
        for cache, rows in zip(caches, pair, strict=True):
            for page, held in zip(pages, torch.split(rows, page_size), strict=False):
                cache[page, :, : len(held)] = held.transpose(0, 1)
    return caches


def _drop_stale(table, lengths, page_size, window, stale):
    """Entries of pages that no query sees name a page of NaN."""
    for row, (_, cached) in zip(table, lengths, strict=True):
        for index in range(max(0, cached - window + 1) // page_size):
            row[index] = stale


def _slots(lengths, table, page_size):
    return [
        row[p // page_size] * page_size + p % page_size
        for (new, cached), row in zip(lengths, table, strict=True)
        for p in range(cached, cached + new)
    ]


def attend(case, window, sinks=None):
    """[T, Hq, D] fp64: one query, one head, one visible key at a time."""
    num_heads, head_dim = case.q.shape[1:]
    sinks = case.sinks if sinks is None else sinks
    out = torch.zeros(case.q.shape, dtype=torch.float64)
    bounds = case.meta.cu_seqlens_q.tolist()
    for b, (k, v) in enumerate(case.dense):
        k, v = k.double(), v.double()
        group = num_heads // k.shape[1]
        for row in range(bounds[b], bounds[b + 1]):
            at = int(case.meta.positions[row])
            first = 0 if window is None else max(0, at - window + 1)
            for h in range(num_heads):
                scores = k[first : at + 1, h // group] @ case.q[row, h].double() / head_dim**0.5
                top = max(scores.max().item(), sinks[h].item())
                weights = (scores - top).exp()
                total = weights.sum().item() + math.exp(sinks[h].item() - top)
                out[row, h] = weights @ v[first : at + 1, h // group] / total
    return out
