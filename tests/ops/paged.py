"""Ragged batches over a paged cache, and attention written as loops in fp64."""

import math
from dataclasses import dataclass

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


def make_case(lengths, page_size=4, heads=(6, 2), head_dim=5, dtype=torch.float32):
    """Requests of (new tokens, cached tokens); pages are shuffled, what is not theirs is NaN."""
    num_heads, num_kv_heads = heads
    counts = [-(-(new + cached) // page_size) for new, cached in lengths]
    num_pages = sum(counts) + 2
    shape = (num_pages, page_size, num_kv_heads, head_dim)
    k_cache, v_cache = torch.full((2, *shape), torch.nan, dtype=dtype)
    free = torch.randperm(num_pages, generator=torch.Generator().manual_seed(0)).tolist()
    dense, table, positions, slots = [], [], [], []
    for index, ((new, cached), count) in enumerate(zip(lengths, counts, strict=True)):
        size = new + cached
        pages = [free.pop() for _ in range(count)]
        where = [pages[p // page_size] * page_size + p % page_size for p in range(size)]
        k, v = normal(2, size, num_kv_heads, head_dim, seed=index + 1, dtype=dtype)
        k_cache.view(-1, num_kv_heads, head_dim)[where] = k
        v_cache.view(-1, num_kv_heads, head_dim)[where] = v
        dense.append((k, v))
        table.append(pages + [0] * (max(counts) - count))
        positions += range(cached, size)
        slots += where[cached:]
    offs = [sum(new for new, _ in lengths[:n]) for n in range(len(lengths) + 1)]
    meta = StepMeta(
        positions=torch.tensor(positions),
        slot_mapping=torch.tensor(slots),
        cu_seqlens_q=torch.tensor(offs, dtype=torch.int32),
        kv_lens=torch.tensor([new + cached for new, cached in lengths], dtype=torch.int32),
        page_table=torch.tensor(table, dtype=torch.int32),
    )
    q = normal(offs[-1], num_heads, head_dim, dtype=dtype) * 2
    return Case(q, k_cache, v_cache, normal(num_heads, seed=99), meta, dense)


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
