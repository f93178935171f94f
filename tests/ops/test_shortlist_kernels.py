"""The head with a shadow against the whole head, bit for bit. Runs on a Hopper GPU only."""

from functools import cache

import pytest
import torch

from haast.bench.small_cases import settings
from haast.ops import linear, sample, shadow_of, shortlist
from haast.ops.shortlist.shadow import LOSS, SPARE_PRODUCTS

from ..mxfp4.exact import as_bits
from .gpu_cases import (
    DEVICE,
    hopper,  # noqa: F401 (a fixture)
    poisoned,
)
from .shortlist_cases import FILTERS, KINDS, check_shortlist, make_weight, make_x, mixed, on

pytestmark = pytest.mark.usefixtures("hopper")
(SCAN,) = shortlist.kernels
SHAPES = ((10, 64), (37, 192), (1057, 128), (8448, 320), (9000, 704))
"""V and K: fewer rows than warps, no whole number of eights, one eight a warp and one more"""
HEAD = (201_088, 2880)
REPLAYS = 300


@pytest.mark.parametrize("num_tokens", [1, 2, 7, 8, 9, 15, 16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_tokens(shape, kind, num_tokens):
    for seed in range(3):
        weight = make_weight(kind, *shape, seed)
        shadow = shadow_of(weight)
        x = make_x(kind, weight, shadow, num_tokens, seed).to(DEVICE)
        weight = weight.to(DEVICE)
        with poisoned():
            check_shortlist(x, weight, shadow_of(weight), on(mixed(num_tokens, seed), DEVICE))


@pytest.mark.parametrize("kind", KINDS)
def test_the_shadow_is_that_of_the_cpu(kind):
    """Norms are added in another order there."""
    weight = make_weight(kind, 2500, 192)
    here, there = shadow_of(weight), shadow_of(weight.to(DEVICE))
    assert torch.equal(there.codes.cpu(), here.codes)
    assert torch.equal(there.bounds[:, 0].cpu(), here.bounds[:, 0])
    assert torch.allclose(there.bounds[:, 1].cpu(), here.bounds[:, 1], rtol=1e-6, atol=0)


@cache
def head():
    generator = torch.Generator(DEVICE).manual_seed(1)
    weight = torch.randn(HEAD, generator=generator, device=DEVICE).bfloat16().mul_(0.02)
    weight[1::1000] = weight[0]
    return weight, shadow_of(weight)


def hidden(num_tokens, seed=0):
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(num_tokens, HEAD[1], generator=generator, device=DEVICE).bfloat16()


@pytest.mark.parametrize("num_tokens", [1, 4, 8, 9, 16])
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_same_tokens_of_a_whole_head(filters, num_tokens):
    weight, shadow = head()
    for seed in range(5):
        x = hidden(num_tokens, seed)
        x[0] = weight[0]  # whose copies tie
        check_shortlist(x, weight, shadow, settings(num_tokens, DEVICE, **filters))


@pytest.mark.parametrize("num_tokens", [1, 16])
def test_few_rows_are_computed(num_tokens):
    """As many as the reference leaves, give or take those at the very threshold."""
    weight, shadow = head()
    x = hidden(num_tokens)
    for filters, groups in (({"temperature": 0.0}, 1.0), ({"top_k": 50}, 2.0)):
        sampling = settings(num_tokens, DEVICE, **filters)
        expected = shortlist.reference(x, weight, shadow, sampling) > -torch.inf
        shadow.num_computed.zero_()
        got = SCAN.fn(x, weight, shadow, sampling) > -torch.inf
        is_listed = got.any(0)
        assert torch.equal(is_listed, got.all(0))
        assert int(shadow.num_computed) == int(is_listed.sum())
        left = int(expected.any(0).sum())
        assert 0.9 * left - 8 <= int(is_listed.sum()) <= 1.1 * groups * left + 8


@pytest.mark.parametrize("num_tokens", [1, 8, 16])
def test_bits_of_a_token_do_not_depend_on_the_others(num_tokens):
    weight, shadow = head()
    x = hidden(16)
    sampling = settings(16, DEVICE, temperature=0.0)
    together = SCAN.fn(x, weight, shadow, sampling)
    some = SCAN.fn(
        x[:num_tokens].contiguous(), weight, shadow, settings(num_tokens, DEVICE, temperature=0.0)
    )
    both = (some > -torch.inf) & (together[:num_tokens] > -torch.inf)
    assert both.any(1).all()
    assert torch.equal(as_bits(some)[both], as_bits(together[:num_tokens])[both])


def test_sums_lose_less_than_the_proof_allows():
    """Of 2880 products of all sizes that all but cancel, so that what is lost can be seen."""
    generator = torch.Generator().manual_seed(4)
    rows, k = 4096, HEAD[1]
    x = torch.randn(16, k // 2, generator=generator)
    x = x * torch.exp2(torch.randint(-12, 13, x.shape, generator=generator).float())
    weight = torch.randn(rows, k // 2, generator=generator)
    is_left = torch.rand(weight.shape, generator=generator) < 0.01
    opposite = torch.where(is_left, 0.0, -weight)
    order = torch.randperm(k, generator=generator)
    x, weight = (
        torch.cat(halves, 1)[:, order].bfloat16().to(DEVICE)
        for halves in ((x, x), (weight, opposite))
    )
    exact, size = (f(x.double()) @ f(weight.double()).T for f in (torch.Tensor.clone, torch.abs))
    lost = (linear.kernels[0].fn(x, weight, None) - exact).abs() - exact.abs() * 2**-8
    share = float((lost / size).max() / (LOSS * (k + SPARE_PRODUCTS)))
    print(f"sums lose {share:.5f} of what the proof allows")
    assert share < 1


def test_a_step_reads_what_the_kernels_before_it_write():
    """Replays of a chain of products, heads and samples, each begun while the one before runs."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(20_000, 1024, generator=generator).bfloat16().to(DEVICE)
    layer = (torch.randn(1024, 1024, generator=generator) / 32).bfloat16().to(DEVICE)
    shadow = shadow_of(weight)
    sampling = settings(3, DEVICE, temperature=0.0)
    start = torch.tensor([5, 7000, 19_999], device=DEVICE)
    held = start.clone()

    def chain(head):
        ids, found = held, []
        for _ in range(8):
            ids = sample(head(linear(weight[ids], layer, None)), sampling)
            found.append(ids)
        return torch.stack(found)

    def short(x):
        return SCAN.fn(x, weight, shadow, sampling)

    results = {}
    for first in (start, start - 5):
        held.copy_(first)
        results[first] = chain(lambda x: linear(x, weight, None)).clone()
        assert torch.equal(chain(short), results[first])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = chain(short)
    for replay in range(REPLAYS):
        first = list(results)[replay % 2]
        held.copy_(first)
        graph.replay()
        assert torch.equal(result, results[first]), replay


def test_no_rows_and_no_tokens():
    x, weight = (torch.ones(n, 64, dtype=torch.bfloat16, device=DEVICE) for n in (2, 0))
    assert SCAN.fn(x, weight, shadow_of(weight), settings(2, DEVICE)).shape == (2, 0)
    assert SCAN.fn(weight, x, shadow_of(x), settings(0, DEVICE)).shape == (0, 2)
