"""Attention against loops: pages, windows, sinks, ragged batches."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from haast import ops
from haast.ops import attention as attention_op

from .paged import attend, make_case, row_by_row
from .pinned import close, normal, reference

MODULE = import_module("haast.ops.attention.reference")
attention = reference(attention_op)
RAGGED = [(3, 0), (1, 12), (5, 6), (1, 0), (4, 4), (2, 9)]


@pytest.mark.parametrize("window", [None, 1, 3, 4, 100])
def test_ragged_batch_with_cached_prefixes(window):
    case = make_case(RAGGED, window=window)
    close(attention(*case.args, window), attend(case, window), 5e-6)


@pytest.mark.parametrize("window", [None, 4])
def test_a_cache_in_e4m3(window):
    """What was rounded when written is read as it is; NaN elsewhere is not."""
    case = make_case(RAGGED, window=window, cache_dtype=torch.float8_e4m3fn)
    assert case.k_cache.dtype == torch.float8_e4m3fn and case.k_cache.float().isnan().any()
    close(attention(*case.args, window), attend(case, window), 5e-6)
    plain = make_case(RAGGED, window=window)
    with pytest.raises(AssertionError):
        close(attention(*plain.args, window), attend(case, window), 5e-3)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 7, 8, 9])
@pytest.mark.parametrize("window", [None, 4])
def test_page_edges(size, window):
    """Pages of 4; as one prefill and as the last token alone."""
    for lengths in ([(size, 0)], [(1, size - 1)]):
        case = make_case(lengths, window=window)
        close(attention(*case.args, window), attend(case, window), 5e-6)


@pytest.mark.parametrize("size", [1, 127, 128, 129, 130, 255, 256, 257])
def test_window_edges_of_a_decode_step(size):
    """Pages and window of 128 as in the model."""
    case = make_case([(1, size - 1), (2, 0)], page_size=128, window=128)
    close(attention(*case.args, 128), attend(case, 128), 5e-6)


def test_window_edges_of_a_prefill():
    case = make_case([(131, 0)], page_size=128, heads=(2, 1), window=128)
    close(attention(*case.args, 128), attend(case, 128), 5e-6)


@pytest.mark.parametrize("window, first", [(128, 2), (1, 129), (129, 1), (130, 0), (None, 0)])
def test_the_window_counts_the_query_itself(window, first):
    """All scores 0 and values that name their key: the mean is of exactly the visible keys."""
    case = make_case([(1, 129)], page_size=128, heads=(2, 1), head_dim=130)
    meta = replace(case.meta, window_page_table=case.meta.page_table)
    pages = meta.page_table[0]
    case.k_cache.zero_()
    case.v_cache[pages] = torch.eye(256)[:, :130].reshape(2, 1, 128, 130)
    no_sink = torch.full((2,), -torch.inf)
    got = attention(case.q, case.k_cache, case.v_cache, no_sink, meta, window)
    expected = torch.zeros(130)
    expected[first:] = 1 / (130 - first)
    torch.testing.assert_close(got[0], expected.expand(2, 130))


def test_without_sinks_it_is_plain_softmax():
    case = make_case([(7, 0)])
    (k, v), repeats = case.dense[0], 3
    q = case.q.transpose(0, 1)
    k, v = (x.repeat_interleave(repeats, dim=1).transpose(0, 1) for x in (k, v))
    plain = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1)
    no_sink = torch.full((6,), -torch.inf)
    got = attention(case.q, case.k_cache, case.v_cache, no_sink, case.meta, None)
    torch.testing.assert_close(got, plain, rtol=1e-5, atol=1e-6)


def test_a_huge_sink_takes_everything():
    case = make_case([(3, 5)])
    sinks = torch.tensor([1e4, 0.0, 0.0, 0.0, 0.0, 1e4])
    got = attention(case.q, case.k_cache, case.v_cache, sinks, case.meta, None)
    assert got[:, [0, 5]].abs().max() == 0
    assert got[:, 1:5].abs().amax(-1).min() > 1e-3


def test_a_sink_as_large_as_the_only_score_halves_the_value():
    case = make_case([(1, 0)], heads=(2, 1))
    score = (case.q[0] * case.dense[0][0][0]).sum(-1) * 5**-0.5
    got = attention(case.q, case.k_cache, case.v_cache, score, case.meta, None)
    torch.testing.assert_close(got[0], (case.dense[0][1][0] / 2).expand(2, 5))


def test_query_heads_share_kv_heads_in_order():
    """Values name their kv head: heads 0 to 2 read the first, 3 to 5 the second."""
    case = make_case([(2, 3)])
    case.v_cache[:] = torch.tensor([1.0, 2.0])[:, None, None]
    no_sink = torch.full((6,), -torch.inf)
    got = attention(case.q, case.k_cache, case.v_cache, no_sink, case.meta, None)
    torch.testing.assert_close(got[..., 0], torch.tensor([1.0] * 3 + [2.0] * 3).expand(2, 6))


@pytest.mark.parametrize("max_scores", [1, 6 * 7 * 2, 6 * 7 * 4 + 5])
@pytest.mark.parametrize("window", [None, 3])
def test_blocks_of_queries_give_the_same(monkeypatch, max_scores, window):
    case = make_case(RAGGED, window=window)
    whole = attention(*case.args, window)
    sizes = []
    attend_block = MODULE._attend_block

    def counting(q, *rest):
        sizes.append(len(q))
        return attend_block(q, *rest)

    monkeypatch.setattr(MODULE, "_attend_block", counting)
    monkeypatch.setattr(MODULE, "MAX_SCORES", max_scores)
    torch.testing.assert_close(attention(*case.args, window), whole, rtol=1e-6, atol=1e-6)
    assert sum(sizes) == len(case.q) and len(sizes) > len(RAGGED)


def test_bf16_is_rounded_once():
    case = make_case(RAGGED, dtype=torch.bfloat16, window=4)
    got = attention(*case.args, 4)
    assert got.dtype == torch.bfloat16
    close(got, attend(case, 4), 2**-8)


@pytest.mark.parametrize("window", [None, 1, 3, 4, 7])
def test_tokens_of_a_request_as_decodes_of_their_own(window):
    """With the same pages: each sees the keys of those before it, and of none after."""
    case = make_case([(1, 6), (3, 2), (4, 9), (2, 0)], window=window)
    got = attention(*case.args[:4], row_by_row(case.meta), window)
    close(got, attend(case, window))


def test_a_request_without_keys_gives_zeros():
    case = make_case([(1, 6), (1, 3)])
    meta = replace(case.meta, kv_lens=torch.tensor([7, 0], dtype=torch.int32))
    got = attention(*case.args[:4], meta, None)
    assert (got[1] == 0).all() and torch.equal(got[0], attention(*case.args, None)[0])


def test_decodes_are_counted_where_they_come_first():
    assert (make_case(RAGGED).meta.num_decodes, make_case(RAGGED).meta.max_query_len) == (0, 5)
    meta = make_case([(1, 4), (1, 0), (3, 2), (1, 9)]).meta
    assert (meta.num_decodes, meta.max_query_len) == (2, 3)
    meta = make_case([(1, 4), (1, 0)]).meta
    assert (meta.num_decodes, meta.max_query_len) == (2, 0)


def test_meta_as_its_docstring_says():
    ints = lambda *values: torch.tensor(values, dtype=torch.int32)
    meta = ops.StepMeta(
        positions=ints(130, 0, 1, 2),
        cu_seqlens_q=ints(0, 1, 4),
        kv_lens=ints(131, 3),
        page_table=ints([2, 5], [7, 0]),
        slot_mapping=ints(642, 896, 897, 898),
        window_page_table=ints([2, 5], [7, 0]),
        window_slot_mapping=ints(642, 896, 897, 898),
        num_decodes=1,
        max_query_len=3,
    )
    for b, rows in enumerate(([0], [1, 2, 3])):
        for row in rows:
            page, offset = divmod(meta.positions[row].item(), 128)
            slot = meta.page_table[b, page] * 128 + offset
            assert slot == meta.slot_mapping[row]
    caches = torch.full((2, 8, 1, 128, 4), torch.nan)
    caches[:, 7, :, :3] = caches[:, 2] = caches[:, 5, :, :3] = normal(2, 1, 1, 4)
    assert attention(normal(4, 2, 4), *caches, normal(2), meta, 128).isfinite().all()
