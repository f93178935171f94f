"""Kernels one after another: captured into CUDA graphs, and each started before the last has ended.

Layers are chained without any other kernel between ours: grouped_matmul makes the logits. Ops run
through their tables, as in the model. Runs on a Hopper GPU only.
"""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from haast.bench.cases import Draw
from haast.mxfp4 import HopperLayout, Mxfp4Weight, SwizzledWeight
from haast.ops import grouped_matmul, moe_down, moe_up, route

from ..mxfp4.exact import as_bits
from .gpu_cases import (
    DEVICE,
    LIMIT,
    hopper,  # noqa: F401 (a fixture)
    none_wrong,
)

H, I, E, A = 352, 224, 16, 3
LAYERS = 50
TOKENS = (1, 5, 30, 100, 300, 500)
"""few rows an expert in 8 and in 16, one block of tokens and several, a tile of each size"""
REPLAYS = 200
CHAINS = 100
UP_SCALE, DOWN_SCALE = 123, 119
"""Scale bytes that keep rows of order one through all layers"""


@dataclass(frozen=True)
class Layer:
    router: SwizzledWeight
    up: SwizzledWeight
    up_bias: Tensor
    down: SwizzledWeight
    down_bias: Tensor


def swizzled(draw, scale, *shape, paired=False):
    found = draw.mxfp4(*shape)
    found = Mxfp4Weight(found.values, torch.full_like(found.scales, scale))
    return found.swizzled(HopperLayout(paired))


def make_layer(seed):
    draw = Draw.on(DEVICE, seed)
    return Layer(
        router=swizzled(draw, UP_SCALE, 1, E, H),
        up=swizzled(draw, UP_SCALE, E, 2 * I, H, paired=True),
        up_bias=draw.normal(E, 2 * I),
        down=swizzled(draw, DOWN_SCALE, E, H, I),
        down_bias=draw.normal(E, H, std=0.1),
    )


def no_rest():
    """Between two kernels: nothing."""


def run_layer(x, layer, rest=no_rest):
    """[T, H] -> [T, H] and the logits between; `rest` after every op."""
    rest()
    logits = grouped_matmul(x, layer.router, all_rows(len(x)))
    rest()
    routing = route(logits, A)
    rest()
    h = moe_up(x, layer.up, layer.up_bias, routing, LIMIT)
    rest()
    return moe_down(h, layer.down, layer.down_bias, routing)


@cache
def all_rows(num_tokens):
    """Made once, before a capture: it is copied from the host."""
    return torch.tensor([0, num_tokens], dtype=torch.int32, device=DEVICE)


def run_chain(x, layers, rest=no_rest):
    """Rows after every tenth layer, [.., T, H]."""
    seen = []
    for i, layer in enumerate(layers):
        x = run_layer(x, layer, rest)
        if i % 10 == 9:
            seen.append(x)
    return seen


def capture(call):
    """A function that replays what `call` launches, and the results it writes to."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    return graph.replay, results


def differences(got, expected):
    """How many elements of two lists of tensors differ in their bits."""
    pairs = zip(got, expected, strict=True)
    return sum((as_bits(one) != as_bits(other)).sum() for one, other in pairs)


@pytest.fixture(scope="module")
def layers(hopper):  # noqa: F811
    return [make_layer(seed) for seed in range(LAYERS)]


def starts(num_tokens, count):
    draw = Draw.on(DEVICE, seed=num_tokens)
    return [draw.normal(num_tokens, H) for _ in range(count)]


@pytest.mark.parametrize("num_tokens", TOKENS)
def test_graph(layers, num_tokens):
    """What was captured with one routing serves any other: nothing of it is read on the host."""
    inputs = starts(num_tokens, 20)
    x = inputs[0].clone()
    replay, results = capture(lambda: [run_layer(x, layers[0])])
    expected = [run_layer(start, layers[0]) for start in inputs]
    wrong = torch.zeros(REPLAYS, dtype=torch.int64, device=DEVICE)
    for launch in range(REPLAYS):
        x.copy_(inputs[launch % len(inputs)])
        replay()
        wrong[launch] = differences(results, [expected[launch % len(inputs)]])
    none_wrong(wrong)


@pytest.fixture(scope="module")
def chains(layers):
    """T -> starts, and what becomes of them if every kernel waits for the one before to end."""
    known = {}

    def make(num_tokens):
        if num_tokens not in known:
            inputs = starts(num_tokens, 3)
            ends = [run_chain(x, layers, torch.cuda.synchronize) for x in inputs]
            known[num_tokens] = inputs, ends
        return known[num_tokens]

    return make


@pytest.mark.parametrize("num_tokens", TOKENS)
def test_rows_stay_alive(chains, num_tokens):
    """Otherwise the chains would compare nothing."""
    for end in chains(num_tokens)[1]:
        for rows in end:
            assert rows.isfinite().all() and 0.1 < rows.float().std() < 100, rows.float().std()
    assert not torch.equal(chains(num_tokens)[1][0][-1], chains(num_tokens)[1][1][-1])


@pytest.mark.parametrize("num_tokens", TOKENS)
def test_chain_without_waiting(chains, layers, num_tokens):
    inputs, ends = chains(num_tokens)
    wrong = torch.zeros(CHAINS, dtype=torch.int64, device=DEVICE)
    for launch in range(CHAINS):
        got = run_chain(inputs[launch % len(inputs)], layers)
        wrong[launch] = differences(got, ends[launch % len(inputs)])
    none_wrong(wrong)


@pytest.mark.parametrize("num_tokens", TOKENS)
def test_chain_in_a_graph(chains, layers, num_tokens):
    """Without the host's time between launches, kernels do overlap."""
    inputs, ends = chains(num_tokens)
    x = inputs[0].clone()
    replay, results = capture(lambda: run_chain(x, layers))
    wrong = torch.zeros(CHAINS, dtype=torch.int64, device=DEVICE)
    for launch in range(CHAINS):
        x.copy_(inputs[launch % len(inputs)])
        replay()
        wrong[launch] = differences(results, ends[launch % len(inputs)])
    none_wrong(wrong)
