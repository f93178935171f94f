"""Attention's kernels against fp64: lengths, windows, sinks, ragged and mixed batches.

Pages are shuffled, unused slots and pages hold NaN, and so does memory before results are written.
Runs on a Hopper GPU only.
"""

from dataclasses import replace

import pytest
import torch

from .attention_gpu import (
    CACHES,
    DECODE,
    HEADS,
    KERNELS,
    PREFILL,
    compare,
    exact,
    exact_lse,
    gpu_case,
    hopper,  # noqa: F401 (a fixture)
    read_lse,
    run_twice,
)
from .gpu_cases import DEVICE, poisoned
from .paged import row_by_row

pytestmark = [
    pytest.mark.usefixtures("hopper"),
    pytest.mark.parametrize("cache", CACHES, ids=str),
]
CONTEXTS = (1, 2, 127, 128, 129, 255, 256, 257, 1000, 4096)
DECODES = [(1, size - 1) for size in CONTEXTS]
CHUNKS = [(5, 122), (130, 0), (23, 1000), (24, 128), (25, 127), (200, 57), (2, 0), (300, 4000)]
MIXED = [(1, 300), (1, 0), (1, 127), (40, 0), (1, 128), (129, 511), (3, 2)]
WINDOWS = (None, 128, 32, 1, 200)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("lengths", [DECODES, CHUNKS, MIXED], ids=["decode", "chunks", "mixed"])
def test_against_fp64(kernel, lengths, window, cache):
    case = gpu_case(lengths, window, cache=cache)
    compare(run_twice(kernel, case, window), exact(case, window))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", [None, 128])
def test_tokens_of_a_request_as_decodes_of_their_own(kernel, window, cache):
    """Several rows read the same pages, each as far as its own position."""
    lengths = [(8, 120), (1, 300), (5, 4000), (8, 0), (2, 126), (3, 127)]
    case = gpu_case(lengths, window, cache=cache)
    rows = replace(case, meta=row_by_row(case.meta))
    compare(run_twice(kernel, rows, window), exact(case, window))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("heads", [(64, 8), (8, 1), (16, 2)], ids=str)
def test_numbers_of_heads(kernel, heads, cache):
    case = gpu_case(MIXED, None, heads, cache=cache)
    compare(run_twice(kernel, case, None), exact(case, None))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", [128, 32])
def test_around_window_and_page_edges(kernel, window, cache):
    sizes = {edge + off for edge in (window, 128, 256, 256 + window) for off in (-2, -1, 0, 1, 2)}
    case = gpu_case([(1, size - 1) for size in sorted(sizes)], window, cache=cache)
    compare(run_twice(kernel, case, window), exact(case, window))
    case = gpu_case([(3, size - 1) for size in sorted(sizes)], window, cache=cache)
    compare(run_twice(kernel, case, window), exact(case, window))


@pytest.mark.parametrize("lengths", [[(1, 131071), (1, 9000)], [(70, 131002)]], ids=str)
@pytest.mark.parametrize("window", [None, 128])
def test_the_longest_context(lengths, window, cache):
    case = gpu_case(lengths, window, (8, 1), cache=cache)
    compare(run_twice(DECODE, case, window), exact(case, window))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", [None, 128])
@pytest.mark.parametrize("sink", [-torch.inf, 0.0, -300.0, 6.0, 40.0])
def test_sinks(kernel, sink, window, cache):
    """From none to such that take nearly everything."""
    sinks = torch.full(HEADS[:1], sink)
    sinks[::3] += 1
    case = gpu_case(MIXED + [(1, 700)], window, sinks=sinks, cache=cache)
    case = replace(case, meta=replace(case.meta, num_decodes=3))
    compare(run_twice(kernel, case, window), exact(case, window))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", [None, 128])
@pytest.mark.parametrize("num_keys", [126, 127, 128, 129, 255, 256, 257, 4096])
def test_log_sum_exp(kernel, window, num_keys, cache):
    """A sink as large as the keys together shows their sum; scores near each other, so that
    rounding each weight to bf16 averages out."""
    case = gpu_case([(1, num_keys - 1)], window, cache=cache)
    case.q.mul_(0.35)
    sinks = (exact_lse(case, window)[-1] + 1).to(case.sinks.dtype)
    case = replace(case, sinks=sinks)
    assert (read_lse(kernel, case, window) - exact_lse(case, window)).abs().max() < 1e-3


@pytest.mark.parametrize("kernel", KERNELS)
def test_huge_sinks_take_everything(kernel, cache):
    case = gpu_case([(1, 700), (1, 3), (30, 200)], sinks=torch.full(HEADS[:1], 1e4), cache=cache)
    assert run_twice(kernel, case, None).abs().max() == 0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [0.0, 20.0])
def test_flat_and_steep_scores(kernel, scale, cache):
    """All keys alike, and all weight on one of them."""
    case = gpu_case(MIXED, cache=cache)
    case.q.mul_(scale)
    compare(run_twice(kernel, case, None), exact(case, None))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", [None, 128])
def test_a_request_without_keys_gives_zeros(kernel, window, cache):
    case = gpu_case(
        [(1, 300), (1, 5), (1, 700)], window, sinks=torch.full(HEADS[:1], -torch.inf), cache=cache
    )
    lens = case.meta.kv_lens.clone()
    lens[1] = 0
    padded = replace(case, meta=replace(case.meta, kv_lens=lens))
    got, whole = run_twice(kernel, padded, window), run_twice(kernel, case, window)
    assert (got[1] == 0).all() and torch.equal(got[::2], whole[::2])


def same(got, expected, window):
    """The same bits to a window, which is not split; else as near as sums in another order are."""
    if window is not None:
        return torch.equal(got, expected)
    return torch.allclose(got.float(), expected.float(), rtol=2**-7, atol=2**-9)


@pytest.mark.parametrize("window", [None, 128])
def test_decodes_alone_and_among_others(window, cache):
    """In another order, with a narrower page table: the same but for how pages are split."""
    case = gpu_case(DECODES, window, cache=cache)
    together = run_twice(DECODE, case, window)
    meta = case.meta
    for b in range(len(DECODES)):
        alone = replace(
            meta,
            positions=meta.positions[b : b + 1],
            cu_seqlens_q=meta.cu_seqlens_q[:2],
            kv_lens=meta.kv_lens[b : b + 1],
            page_table=meta.page_table[b : b + 1],
            window_page_table=meta.window_page_table[b : b + 1],
            num_decodes=1,
        )
        cut = replace(case, q=case.q[b : b + 1], meta=alone)
        assert same(DECODE.fn(*cut.args, window), together[b : b + 1], window), b
        used = max(1, -(-CONTEXTS[b] // 128))
        tables = (meta.page_table[b : b + 1, :used], meta.window_page_table[b : b + 1, :used])
        page_table, window_page_table = (table.contiguous() for table in tables)
        narrow = replace(alone, page_table=page_table, window_page_table=window_page_table)
        cut = replace(cut, meta=narrow)
        assert same(DECODE.fn(*cut.args, window), together[b : b + 1], window), b


@pytest.mark.parametrize("window", [None, 128, 32])
def test_prefill_bits_depend_on_position_and_keys_alone(window, cache):
    """A prompt at once, in chunks and token by token, alone and beside others."""
    size = 413
    case = gpu_case([(size, 0), (9, 30)], cache=cache)
    meta = replace(case.meta, window_page_table=case.meta.page_table)
    case = replace(case, meta=meta)
    whole = run_twice(PREFILL, case, window)[:size]
    for step in (1, 7, 24, 100, 128, 250):
        for first in range(0, size, step if step > 1 else 13):
            last = min(first + step, size)
            with poisoned():
                got = PREFILL.fn(*piece(case, first, last).args, window)
            assert torch.equal(got, whole[first:last]), (step, first)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_number_of_the_cache_is_read_exactly(kernel, cache):
    """One key, no sink: the result is its value."""
    case = gpu_case(
        [(1, 0)] * 4 + [(2, 0)], heads=(8, 1), sinks=torch.full((8,), -torch.inf), cache=cache
    )
    codes = torch.arange(256, device=DEVICE).view(4, 64).to(torch.uint8).view(torch.float8_e4m3fn)
    numbers = codes.float().nan_to_num(nan=0.0)
    case.q.zero_()
    for page, row in zip(case.meta.page_table[:, 0].tolist(), numbers, strict=False):
        case.v_cache[page, 0, 0] = row.to(cache)
    got = kernel.fn(*case.args, None)[:4]
    assert torch.equal(got, numbers[:, None].bfloat16().expand(4, 8, 64))


def piece(case, first, last):
    """Queries [first, last) of the first request, as a step of their own."""
    ints = lambda *values: torch.tensor(values, dtype=torch.int32, device=DEVICE)
    table = case.meta.page_table[:1]
    meta = replace(
        case.meta,
        positions=torch.arange(first, last, dtype=torch.int32, device=DEVICE),
        cu_seqlens_q=ints(0, last - first),
        kv_lens=ints(last),
        page_table=table,
        window_page_table=table,
        num_decodes=0,
        max_query_len=last - first,
    )
    return replace(case, q=case.q[first:last].contiguous(), meta=meta)


def test_many_requests(cache):
    case = gpu_case([(1, 37 * i % 400) for i in range(512)], heads=(8, 1), cache=cache)
    compare(run_twice(DECODE, case, None), exact(case, None))
