"""Cases of attention's kernels on a GPU, their fp64 results and how to compare."""

from dataclasses import fields, replace

import pytest
import torch

from haast.bench.machine import why_no_hopper
from haast.ops import attention, why_no_kernels

from ..mxfp4.exact import as_bits
from .gpu_cases import DEVICE, hopper, poisoned
from .paged import Case, make_case

__all__ = ["hopper"]
"""The fixture: a Hopper GPU, or a skip with its reason, or a failure if one was promised"""

HEADS = (24, 3)
"""A group of 8, and no two sizes alike"""
LIMIT = 3e-3
"""Rounding weights and results to bf16 costs 1.6e-3 of a row on average"""
KERNELS = [pytest.param(kernel, id=kernel.name) for kernel in attention.kernels]
CACHES = [torch.bfloat16, torch.float8_e4m3fn]
DECODE, PREFILL = attention.kernels


def gpu_case(lengths, window=None, heads=HEADS, sinks=None, cache=torch.bfloat16) -> Case:
    """`make_case` at the kernels' page and head size, on the GPU."""
    case = make_case(lengths, 128, heads, 64, torch.bfloat16, window, cache)
    case = replace(case, sinks=(case.sinks if sinks is None else sinks).bfloat16())
    return moved(case)


def moved(case: Case) -> Case:
    """Everything on the GPU."""
    meta = {f.name: to_gpu(getattr(case.meta, f.name)) for f in fields(case.meta)}
    dense = [tuple(map(to_gpu, pair)) for pair in case.dense]
    rest = {name: to_gpu(getattr(case, name)) for name in ("q", "k_cache", "v_cache", "sinks")}
    return Case(**rest, meta=replace(case.meta, **meta), dense=dense)


def to_gpu(value):
    return value.to(DEVICE) if isinstance(value, torch.Tensor) else value


def exact(case: Case, window: int | None) -> torch.Tensor:
    """[T, Hq, D] fp64, a kv head at a time."""
    num_heads = case.q.shape[1]
    out = torch.zeros(case.q.shape, dtype=torch.float64, device=case.q.device)
    bounds = case.meta.cu_seqlens_q.tolist()
    for b, (k, v) in enumerate(case.dense):
        rows = slice(bounds[b], bounds[b + 1])
        num_q, (num_kv, num_kv_heads, head_dim) = bounds[b + 1] - bounds[b], k.shape
        query = torch.arange(num_kv - num_q, num_kv, device=k.device)[:, None]
        key = torch.arange(num_kv, device=k.device)[None]
        hidden = (key > query) | (key <= query - (window or num_kv))
        group = num_heads // num_kv_heads
        for h in range(num_kv_heads):
            heads = slice(h * group, h * group + group)
            scores = case.q[rows, heads].double().transpose(0, 1) @ k[:, h].double().T
            scores = (scores * head_dim**-0.5).masked_fill_(hidden, -torch.inf)
            sink = case.sinks[heads].double().view(-1, 1, 1).expand(-1, num_q, 1)
            weights = torch.cat((scores, sink), -1).softmax(-1)[..., :-1]
            out[rows, heads] = (weights @ v[:, h].double()).transpose(0, 1)
    return out


def exact_lse(case: Case, window: int | None) -> torch.Tensor:
    """Log-sum-exp of the visible scores, without the sink, of one request [T, Hq] fp64."""
    (k, _), num_q, num_heads = case.dense[0], len(case.q), case.q.shape[1]
    query = torch.arange(len(k) - num_q, len(k), device=k.device)[:, None]
    key = torch.arange(len(k), device=k.device)[None]
    hidden = (key > query) | (key <= query - (window or len(k)))
    keys = k.double().repeat_interleave(num_heads // k.shape[1], 1)
    scores = torch.einsum("qhd,khd->hqk", case.q.double(), keys) * k.shape[2] ** -0.5
    return scores.masked_fill_(hidden, -torch.inf).logsumexp(-1).T


def read_lse(kernel, case: Case, window: int | None) -> torch.Tensor:
    """What a kernel's results tell of it [T, Hq] fp64.

    Where all values are c, a result is c * w with w = sigmoid(lse - sink). Eight c, times ten
    sinks, of which each is rounded elsewhere, tell it to a few parts in 10,000.
    """
    c = 1 + torch.arange(64, device=case.q.device) % 8 / 8
    case.v_cache[:] = c.to(case.v_cache.dtype)
    least, most = [], []
    for step in range(10):
        sinks = case.sinks + 0.11 * step
        out = run_twice(kernel, replace(case, sinks=sinks), window).double()
        half = torch.exp2(out.log2().floor() - 8)
        least.append(sinks.double() + ((out - half) / c).amax(-1).logit())
        most.append(sinks.double() + ((out + half) / c).amin(-1).logit())
    return (torch.stack(least).amax(0) + torch.stack(most).amin(0)) / 2


def errors(got: torch.Tensor, expected: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Relative error in the Frobenius norm of every head of every token [T, Hq], and overall."""
    difference = got.double() - expected
    rows = difference.norm(dim=-1) / expected.norm(dim=-1)
    return rows, float(difference.norm() / expected.norm())


def compare(got: torch.Tensor, expected: torch.Tensor) -> None:
    """Every head of every token, and the whole."""
    assert got.shape == expected.shape
    rows, overall = errors(got, expected)
    worst = int(rows.nan_to_num(nan=torch.inf).argmax())
    token, head = divmod(worst, rows.shape[1])
    assert rows[token, head] < 2 * LIMIT, f"token {token} head {head}: {rows[token, head]:.3g}"
    tokens = (got.double() - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert tokens.max() < LIMIT, f"token {int(tokens.argmax())}: {tokens.max():.3g}"
    assert overall < LIMIT, overall


def run_twice(kernel, case: Case, window: int | None) -> torch.Tensor:
    """Into poisoned memory; both results have the same bits."""
    assert why_no_hopper() is None and why_no_kernels(DEVICE) is None
    assert kernel.rejects(*case.args, window) is None
    with poisoned():
        first, second = kernel.fn(*case.args, window), kernel.fn(*case.args, window)
    assert not first.isnan().any(), "memory that was not written, or NaN from numbers"
    assert torch.equal(as_bits(first), as_bits(second)), "the same input twice, other bits"
    return first
