"""The expert matrices against loops in fp64: H, I, E, A all different."""

import math

import pytest
import torch

from haast import ops
from haast.mxfp4 import Mxfp4Weight

from .pinned import close, normal, reference

route, moe_up, moe_down = map(reference, (ops.route, ops.moe_up, ops.moe_down))
H, I, E, A = 64, 32, 5, 2
LIMIT = 7.0


def packed(*shape, seed=0):
    """Random MXFP4 bytes whose numbers are of order one."""
    generator = torch.Generator().manual_seed(seed)
    *rows, k = shape
    values = torch.randint(256, (*rows, k // 2), generator=generator).to(torch.uint8)
    scales = torch.randint(122, 126, (*rows, k // 32), generator=generator).to(torch.uint8)
    return Mxfp4Weight(values, scales)


def routings():
    """Name -> router logits [T, E]."""
    hot = normal(9, E)
    hot[:, 3] += 100
    gaps = normal(7, E)
    gaps[:, [0, 2]] = -100
    return {
        "T = 0": torch.empty(0, E),
        "T = 1": normal(1, E),
        "odd T": normal(13, E),
        "one hot expert": hot,
        "empty experts": gaps,
    }


CASES = pytest.mark.parametrize("logits", routings().values(), ids=routings())


def swiglu(gate, up):
    gate, up = min(gate, LIMIT), max(-LIMIT, min(up, LIMIT))
    return gate / (1 + math.exp(-1.702 * gate)) * (up + 1)


def simple_up(x, weight, bias, logits):
    """[T, A, I]: token by token, its experts in order of their logits."""
    best = [sorted(range(E), key=lambda e: -row[e])[:A] for row in logits.tolist()]
    out = torch.zeros(len(x), A, bias.shape[1] // 2, dtype=torch.float64)
    for t, experts in enumerate(best):
        for a, e in enumerate(experts):
            z = weight[e].double() @ x[t].double() + bias[e].double()
            pairs = zip(z[0::2].tolist(), z[1::2].tolist(), strict=True)
            out[t, a] = torch.tensor([swiglu(g, u) for g, u in pairs])
    return out


def simple_down(h, weight, bias, logits):
    """[T, H] from h [T, A, I]."""
    out = torch.zeros(len(h), bias.shape[1], dtype=torch.float64)
    for t, row in enumerate(logits.double().tolist()):
        best = sorted(range(E), key=lambda e: -row[e])[:A]
        total = sum(math.exp(row[e]) for e in best)
        for a, e in enumerate(best):
            y = weight[e].double() @ h[t, a].double() + bias[e].double()
            out[t] += math.exp(row[e]) / total * y
    return out


def in_routed_order(slots, routing):
    """[T, A, ...] -> [R, ...]."""
    return slots.flatten(0, 1)[routing.scatter_idx]


@CASES
def test_moe_up(logits):
    x, weight, bias = normal(len(logits), H), normal(E, 2 * I, H), normal(E, 2 * I, seed=1)
    routing = route(logits, A)
    expected = in_routed_order(simple_up(x, weight, bias, logits), routing)
    close(moe_up(x, weight, bias, routing, LIMIT), expected, 2e-5)


@CASES
def test_moe_down(logits):
    slots, weight, bias = normal(len(logits), A, I), normal(E, H, I), normal(E, H, seed=1)
    routing = route(logits, A)
    got = moe_down(in_routed_order(slots, routing), weight, bias, routing)
    close(got, simple_down(slots, weight, bias, logits), 1e-5)


@CASES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mxfp4_equals_its_numbers(logits, dtype):
    """Bit for bit, with the numbers in either dtype that holds them."""
    routing = route(logits, A)
    x, weight, bias = normal(len(logits), H, dtype=dtype), packed(E, 2 * I, H), normal(E, 2 * I)
    h = moe_up(x, weight, bias, routing, LIMIT)
    assert h.dtype == dtype and h.shape == (len(logits) * A, I)
    assert torch.equal(h, moe_up(x, weight.dequantize(dtype), bias, routing, LIMIT))
    weight, bias = packed(E, H, I), normal(E, H)
    y = moe_down(h, weight, bias, routing)
    assert y.dtype == dtype and y.shape == x.shape
    assert torch.equal(y, moe_down(h, weight.dequantize(dtype), bias, routing))


def test_mxfp4_against_loops():
    logits = normal(13, E)
    routing, weight, bias = route(logits, A), packed(E, 2 * I, H), normal(E, 2 * I)
    x = normal(13, H)
    expected = simple_up(x, weight.dequantize(torch.float64), bias, logits)
    close(moe_up(x, weight, bias, routing, LIMIT), in_routed_order(expected, routing), 2e-5)


def test_moe_up_reads_out_the_decoded_weight():
    """x is one-hot and the bias puts the other half of SwiGLU where it is known."""
    weight = packed(1, 2 * I, H)
    routing = route(torch.zeros(H, 1), 1)
    bias = torch.zeros(1, 2 * I)
    bias[0, 0::2] = 1e4
    only_up = weight.dequantize(torch.float32).clone()
    only_up[:, 0::2] = 0
    got = moe_up(torch.eye(H), only_up, bias, routing, 2.0**14)
    assert torch.equal(got, 1e4 * (only_up[0, 1::2].T + 1))


@pytest.mark.parametrize(
    "gate, up",
    [(7, 7), (7.5, 7.5), (1e4, 1), (-1e4, 1), (1, 1e4), (1, -1e4), (-7.5, -7.5), (7, -7), (0, 5)],
)
def test_clamp_limits(gate, up):
    """The gate from above only, the up part on both sides."""
    bias = torch.tensor([[float(gate), float(up)]])
    routing = route(torch.zeros(1, 1), 1)
    got = moe_up(torch.zeros(1, 3), torch.zeros(1, 2, 3), bias, routing, LIMIT)
    if gate < -100:
        assert got.item() == 0
    else:
        assert got.item() == pytest.approx(swiglu(gate, up), rel=1e-6)


def test_another_limit():
    routing = route(torch.zeros(1, 1), 1)
    got = moe_up(torch.zeros(1, 3), torch.zeros(1, 2, 3), torch.full((1, 2), 9.0), routing, 2.0)
    assert got.item() == pytest.approx(2 / (1 + math.exp(-3.404)) * 3, rel=1e-6)


def test_bf16_is_rounded_once():
    logits = normal(13, E)
    routing, bf16 = route(logits, A), torch.bfloat16
    x, weight, bias = normal(13, H, dtype=bf16), packed(E, 2 * I, H), normal(E, 2 * I, dtype=bf16)
    expected = simple_up(x, weight.dequantize(torch.float64), bias, logits)
    close(moe_up(x, weight, bias, routing, LIMIT), in_routed_order(expected, routing), 2**-8)
    slots, weight, bias = normal(13, A, I, dtype=bf16), packed(E, H, I), normal(E, H, dtype=bf16)
    got = moe_down(in_routed_order(slots, routing), weight, bias, routing)
    close(got, simple_down(slots, weight.dequantize(torch.float64), bias, logits), 2**-8)


def test_up_and_down_undo_the_routed_order():
    """Each token's row comes back to it, weighted by its experts."""
    logits = normal(13, E)
    x, up, down = normal(13, H), packed(E, 2 * I, H), packed(E, H, I)
    up_bias, down_bias = normal(E, 2 * I), normal(E, H)
    routing = route(logits, A)
    h = moe_up(x, up, up_bias, routing, LIMIT)
    got = moe_down(h, down, down_bias, routing)
    slots = simple_up(x, up.dequantize(torch.float64), up_bias, logits)
    close(got, simple_down(slots, down.dequantize(torch.float64), down_bias, logits), 2e-5)
