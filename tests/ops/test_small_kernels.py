"""Sampling, adjusting and normalising kernels against references. Runs on a Hopper GPU only."""

from functools import cache

import pytest
import torch

from haast.bench.small_cases import settings
from haast.ops import Sampling, add_rms_norm, adjust_logits, count_tokens, rms_norm, sample
from haast.ops.sample.philox import uniform

from ..mxfp4.exact import as_bits
from .gpu_cases import (
    DEVICE,
    hopper,  # noqa: F401 (a fixture)
    none_wrong,
)
from .gpu_small_cases import (
    DTYPES,
    FILTERS,
    KINDS,
    adjustments,
    check_adjusted,
    check_counted,
    check_norms,
    check_tokens,
    draw_logits,
    mixed,
)

pytestmark = pytest.mark.usefixtures("hopper")
VOCAB = 201_088
VOCABS = (1, 3, 8, 1000, 1031, 4096, VOCAB)
CHAIN = 60
REPLAYS = 50


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocab", VOCABS)
def test_tokens(vocab, kind, dtype):
    """Every filter alone and combined; few rows may differ, each next to a boundary."""
    num_rows = 2 * len(FILTERS)
    logits = draw_logits(kind, num_rows, vocab).to(dtype).to(DEVICE)
    rows = mixed(num_rows, DEVICE)
    near = check_tokens(logits, rows, sample(logits, rows))
    assert near <= (num_rows // 3 if kind == "flat" else num_rows // 10), near


@cache
def many_logits():
    return draw_logits("model", 100, VOCAB).bfloat16().to(DEVICE)


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_dtypes_and_batches_agree(filters):
    """The same numbers in bf16 and fp32; a row in any batch, at any place."""
    logits = many_logits()
    rows = settings(100, DEVICE, **filters)
    expected = sample(logits, rows)
    assert torch.equal(sample(logits.float(), rows), expected)
    for first, last in ((0, 1), (99, 100), (7, 40)):
        part = Sampling(**{name: value[first:last] for name, value in vars(rows).items()})
        assert torch.equal(sample(logits[first:last], part), expected[first:last])
    if not filters.get("temperature", 1.0):
        assert torch.equal(expected, logits.float().argmax(-1))
    assert ((expected >= 0) & (expected < VOCAB)).all()


def test_settings_may_begin_anywhere():
    """They are parts of one buffer; only logits are read 16 bytes at a time."""
    rows, logits = mixed(7, DEVICE), draw_logits("model", 7, 1000).to(DEVICE)
    moved = {name: torch.cat([v[:1], v])[1:] for name, v in vars(rows).items()}
    assert moved["top_k"].data_ptr() % 16 == 4
    assert torch.equal(sample(logits, Sampling(**moved)), sample(logits, rows))


@pytest.mark.parametrize("filters", [{}, {"top_k": 6}, {"top_p": 0.8}, {"min_p": 0.1}], ids=str)
def test_frequencies(filters):
    """100,000 draws over ten tokens; several remain, and come as often as by the reference."""
    count, logits = 100_000, draw_logits("flat", 1, 10) * 6
    rows = settings(count, DEVICE, **filters)
    expected = sample.reference(logits.to(DEVICE).expand(count, -1), rows).bincount(minlength=10)
    got = torch.cat(
        [
            sample(
                logits.to(DEVICE).expand(50_000, -1).contiguous(),
                Sampling(**{name: value[part:][:50_000] for name, value in vars(rows).items()}),
            )
            for part in (0, 50_000)
        ]
    ).bincount(minlength=10)
    assert (got - expected).abs().sum() <= 4, "a number of many lies at a boundary"
    assert got.sum() == count and (got > 0).sum() > 1


def test_random_numbers_pick_every_share():
    """4,096 equal logits: the token is the first twelve bits of the number."""
    rows = mixed(2000, DEVICE)
    plain = settings(2000, DEVICE)
    rows = Sampling(**{**vars(plain), "seed": rows.seed, "position": rows.position})
    got = sample(torch.zeros(2000, 4096, device=DEVICE), rows)
    assert torch.equal(got, (uniform(rows.seed, rows.position) * 4096).long())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_rows, vocab", [(1, VOCAB), (7, 1031), (33, 4096), (2, 5)])
def test_adjusted_logits(num_rows, vocab, dtype):
    check_adjusted(num_rows, vocab, dtype, DEVICE)


@pytest.mark.parametrize("num_rows", [1, 40, 1000])
def test_counted_tokens(num_rows):
    check_counted(num_rows, 1031, DEVICE)


@pytest.mark.parametrize("hidden", [8, 256, 352, 2880, 8192])
@pytest.mark.parametrize("num_tokens", [0, 1, 2, 3, 64, 129, 8192])
def test_norms(num_tokens, hidden):
    check_norms(num_tokens, hidden, DEVICE)


def no_rest():
    """Between two kernels: nothing."""


def run_chain(x, weight, rows, changes, rest=no_rest):
    """Norms, whose result is the next logits; samples change the history that changes logits."""
    penalties, masks, _ = changes
    history = penalties.history.clone()
    own = type(penalties)(**{**vars(penalties), "history": history})
    tokens = []
    for _ in range(CHAIN):
        rest()
        x, logits = add_rms_norm(x, x, weight, 1e-5)
        rest()
        x = rms_norm(x, weight, 1e-5)
        rest()
        adjust_logits(logits, own, masks, None)
        rest()
        token = sample(logits, rows)
        rest()
        count_tokens(history, own.history_row, token)
        tokens.append(token)
    return torch.stack(tokens), x


@pytest.mark.parametrize("is_captured", [False, True], ids=["launched", "captured"])
def test_chain_without_waiting(is_captured):
    """Kernels that start before the last one has ended still see what it wrote."""
    num_rows, vocab = 40, 4096
    x = draw_logits("model", num_rows, vocab).bfloat16().to(DEVICE)
    weight = draw_logits("model", 1, vocab, seed=1)[0].bfloat16().to(DEVICE)
    rows, changes = mixed(num_rows, DEVICE), adjustments(num_rows, vocab, DEVICE)
    expected = run_chain(x, weight, rows, changes, torch.cuda.synchronize)
    assert len({*expected[0].flatten().tolist()}) > 100, "tokens vary"
    call = lambda: run_chain(x, weight, rows, changes)
    if is_captured:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = call()
    wrong = torch.zeros(REPLAYS, dtype=torch.int64, device=DEVICE)
    for launch in range(REPLAYS):
        if is_captured:
            graph.replay()
        else:
            results = call()
        wrong[launch] = (results[0] != expected[0]).sum()
        wrong[launch] += (as_bits(results[1]) != as_bits(expected[1])).sum()
    none_wrong(wrong)


def test_a_graph_reads_settings_on_the_device():
    logits = draw_logits("model", 8, VOCAB).bfloat16().to(DEVICE)
    rows = mixed(8, DEVICE)
    sample(logits, rows)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        token_ids = sample(logits, rows)
    other = settings(8, DEVICE, top_k=30)
    for name, value in vars(rows).items():
        value.copy_(getattr(other, name))
    logits.copy_(draw_logits("ties", 8, VOCAB).bfloat16())
    graph.replay()
    assert torch.equal(token_ids, sample(logits, other))
