"""Results that fp32 holds exactly: kernels give them bit for bit, in every one of many launches.

One-hot rows read the decoded weights. Rows of -1, 0 and 1 with scales of 1 have sums that are
multiples of 0.5, whatever the order of addition: wgmma whose registers are overwritten too early
shows here, as 61 instead of 64. Runs on a Hopper GPU only.
"""

from dataclasses import dataclass, replace

import pytest
import torch

from haast.bench.cases import Draw
from haast.mxfp4 import HopperLayout, Mxfp4Weight
from haast.mxfp4.format import pack
from haast.ops import Routing, grouped_matmul, moe_down, moe_up
from haast.ops.moe import swiglu

from .gpu_cases import (
    DEVICE,
    ONE,
    Shape,
    add_choices,
    expert_of_row,
    hopper,  # noqa: F401 (a fixture)
    name_of,
    none_wrong,
    poisoned,
    random_routing,
    rounds_terms,
    skip_rejected,
)

POOL = 512
"""Rows whose exact results are known; a launch takes some of them"""
ROUTINGS = 16
GATE = 2048.0
"""Bias of gates and limit of SwiGLU: sigmoid is 1 there, about half the gates are clamped"""


@dataclass(frozen=True)
class Rows:
    """A grouped product."""

    num_experts: int
    num_rows: int
    n: int
    k: int
    launches: int


GROUPED = {
    "tall": Rows(4, 272, 400, 2880, 3000),
    "tall, tail": Rows(8, 203, 784, 1440, 2000),
    "tall, few rows": Rows(16, 61, 2880, 352, 2000),
    "wide": Rows(2, 700, 384, 2880, 3000),
    "wide, tail": Rows(3, 1001, 208, 96, 2000),
    "tall, a model's": Rows(32, 512, 2880, 2880, 1000),
    "wide, a model's": Rows(4, 4096, 5760, 2880, 500),
}
SMALL = Shape(num_experts=8, num_active=2, hidden=2880, intermediate=208)
SMALL_DOWN = replace(SMALL, hidden=208, intermediate=1568)
"""K in two parts, the second with a tail"""
MODEL = Shape(num_experts=32, num_active=4, hidden=2880, intermediate=2880)
TOKENS = {SMALL: (12, 28, 200, 600), SMALL_DOWN: (12, 28, 200, 600), MODEL: (1, 16, 100, 700)}
"""For each variant of a kernel"""
LAUNCHES = {SMALL: 1000, SMALL_DOWN: 1000, MODEL: 250}
UP_CASES = [(s, t) for s in (SMALL, MODEL) for t in TOKENS[s]]
DOWN_CASES = [(s, t) for s in (SMALL_DOWN, MODEL) for t in TOKENS[s]]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def draw_integers(*shape):
    """-1, 0 and 1 as bf16."""
    return torch.randint(-1, 2, shape, device=DEVICE).bfloat16()


def integer_weight(*shape):
    """Random codes, all scales 1."""
    weight = Draw.on(DEVICE, seed=sum(shape)).mxfp4(*shape)
    return replace(weight, scales=torch.full_like(weight.scales, ONE))


def exact_sums(pool, weight):
    """[E, P, N] fp32: each row of the pool times each expert."""
    found = [pool.double() @ matrix.dequantize(torch.float64).T for matrix in unstack(weight)]
    return torch.stack([sums.float() for sums in found])


def unstack(weight):
    return [weight[e] for e in range(weight.shape[0])]


def random_groups(num_experts, num_rows):
    """Rows to experts, unevenly, some without any: expert_offs [E + 1] and the experts [R]."""
    popularity = torch.rand(num_experts, device=DEVICE) ** 3 + 1e-3
    experts = popularity.multinomial(num_rows, replacement=True).sort().values
    offs = torch.bincount(experts, minlength=num_experts).cumsum(0)
    return torch.nn.functional.pad(offs, (1, 0)).int(), experts


@pytest.mark.parametrize("rows", GROUPED.values(), ids=GROUPED)
@pytest.mark.parametrize("kernel", grouped_matmul.kernels, ids=name_of)
def test_grouped_integers(kernel, rows):
    weight = integer_weight(rows.num_experts, rows.n, rows.k)
    swizzled = weight.swizzled(HopperLayout(paired=False))
    pool = draw_integers(POOL, rows.k)
    sums = exact_sums(pool, weight)
    groups = [random_groups(rows.num_experts, rows.num_rows) for _ in range(ROUTINGS)]
    skip_rejected(kernel, (pool, swizzled, groups[0][0], torch.float32))
    wrong = torch.zeros(rows.launches, dtype=torch.int64, device=DEVICE)
    for launch in range(rows.launches):
        offs, experts = groups[launch % ROUTINGS]
        chosen = torch.randint(POOL, (rows.num_rows,), device=DEVICE)
        got = kernel.fn(pool[chosen], swizzled, offs, torch.float32)
        wrong[launch] = (got != sums[experts, chosen]).sum()
    none_wrong(wrong)


def routings(shape, num_tokens):
    """With weights that are powers of two, so that sums of terms are exact too."""
    found = []
    for seed in range(ROUTINGS):
        routing = random_routing(Draw.on(DEVICE, seed), shape, num_tokens)
        powers = torch.randint_like(routing.expert_ids, -4, 1).float().exp2()
        found.append(replace(routing, expert_weights=powers))
    return found


@pytest.mark.parametrize("shape, num_tokens", UP_CASES, ids=name_of)
@pytest.mark.parametrize("kernel", moe_up.kernels, ids=name_of)
def test_up_integers(kernel, shape, num_tokens):
    """A gate of 500 and more has a sigmoid of 1: all that is rounded is one product."""
    weight = integer_weight(shape.num_experts, 2 * shape.intermediate, shape.hidden)
    bias = torch.randint(-8, 9, weight.shape[:2], device=DEVICE).bfloat16()
    bias[:, ::2] = GATE
    pool = draw_integers(POOL, shape.hidden)
    sums = exact_sums(pool, weight) + bias[:, None].float()
    assert sums[..., ::2].min() > GATE / 4, "sigmoid may not be 1"
    expected = swiglu(sums, GATE).bfloat16()
    swizzled = weight.swizzled(HopperLayout(paired=True))
    known = routings(shape, num_tokens)
    wrong = torch.zeros(LAUNCHES[shape], dtype=torch.int64, device=DEVICE)
    for launch in range(len(wrong)):
        routing = known[launch % ROUTINGS]
        chosen = torch.randint(POOL, (num_tokens,), device=DEVICE)
        args = (pool[chosen], swizzled, bias, routing, GATE)
        if launch == 0:
            skip_rejected(kernel, args)
        got = kernel.fn(*args)
        rows = expected[expert_of_row(routing), chosen[routing.gather_idx]]
        wrong[launch] = (got != rows).sum()
    none_wrong(wrong)


@pytest.mark.parametrize("shape, num_tokens", DOWN_CASES, ids=name_of)
@pytest.mark.parametrize("kernel", moe_down.kernels, ids=name_of)
def test_down_integers(kernel, shape, num_tokens):
    weight = integer_weight(shape.num_experts, shape.hidden, shape.intermediate)
    bias = torch.randint(-8, 9, weight.shape[:2], device=DEVICE).bfloat16()
    pool = draw_integers(POOL, shape.intermediate)
    sums = exact_sums(pool, weight) + bias[:, None].float()
    swizzled = weight.swizzled(HopperLayout(paired=False))
    known = routings(shape, num_tokens)
    wrong = torch.zeros(LAUNCHES[shape], dtype=torch.int64, device=DEVICE)
    for launch in range(len(wrong)):
        routing = known[launch % ROUTINGS]
        chosen = torch.randint(POOL, (num_tokens * shape.num_active,), device=DEVICE)
        args = (pool[chosen], swizzled, bias, routing)
        if launch == 0:
            skip_rejected(kernel, args)
        terms = sums[expert_of_row(routing), chosen]
        rows = add_choices(terms, routing, rounds_terms(kernel)).bfloat16()
        wrong[launch] = (kernel.fn(*args) != rows).sum()
    none_wrong(wrong)


IDENTITY_EXPERTS = 3


def every_weight(n, k):
    """All 16 codes in every group, all scale bytes 0..128."""
    generator = torch.Generator(DEVICE).manual_seed(n + k)
    size = (IDENTITY_EXPERTS, n, k // 32)
    noise = torch.rand(*size, 32, generator=generator, device=DEVICE)
    codes = (noise.argsort(-1) % 16).to(torch.uint8)
    scales = torch.arange(n * k * IDENTITY_EXPERTS // 32, device=DEVICE) % 129
    return Mxfp4Weight(pack(codes.flatten(-2)), scales.view(size).to(torch.uint8))


def one_hot(columns, k):
    x = torch.zeros(len(columns), k, dtype=torch.bfloat16, device=DEVICE)
    return x.scatter_(1, columns[:, None], 1)


@pytest.mark.parametrize("n", [16, 432])
@pytest.mark.parametrize("k", [96, 192, 1440, 2880])
@pytest.mark.parametrize("rows", [7, 60, 1000], ids="rows-{}".format)
def test_one_hot_rows_read_every_weight(n, k, rows):
    """All of K, a few columns a launch, through the tall tile and the wide one."""
    weight = every_weight(n, k)
    swizzled, wide = weight.swizzled(HopperLayout(False)), weight.dequantize(torch.float32)
    for kernel in grouped_matmul.kernels:
        for first in range(0, k, rows):
            columns = torch.arange(first, first + rows, device=DEVICE) % k
            # the middle one of three experts has no rows
            offs = torch.tensor([0, len(columns), len(columns), 2 * len(columns)], device=DEVICE)
            expected = torch.cat((wide[0].T[columns], wide[2].T[columns]))
            for dtype in (torch.float32, torch.bfloat16):
                args = (one_hot(columns.repeat(2), k), swizzled, offs.int(), dtype)
                skip_rejected(kernel, args)
                with poisoned():
                    got = kernel.fn(*args)
                assert torch.equal(got, expected.to(dtype)), f"columns from {first}, {dtype}"


@pytest.mark.parametrize("k", [96, 192, 1440, 2880])
@pytest.mark.parametrize("kernel", moe_down.kernels, ids=name_of)
def test_one_hot_rows_through_down(kernel, k):
    """One choice a token with weight 1 and no bias: the result is the weight."""
    weight = every_weight(48, k)
    swizzled, wide = weight.swizzled(HopperLayout(False)), weight.dequantize(torch.bfloat16)
    bias = torch.zeros(wide.shape[:2], dtype=torch.bfloat16, device=DEVICE)
    for rows in (3, 20, 150, 960):
        for first in range(0, k, rows):
            columns = torch.arange(first, first + rows, device=DEVICE) % k
            order = torch.arange(len(columns), device=DEVICE, dtype=torch.int32)
            ids = torch.full_like(order, 1)[:, None]
            offs = torch.tensor([0, 0, len(columns), len(columns)], device=DEVICE).int()
            routing = Routing(ids, torch.ones_like(ids).float(), offs, order, order)
            args = (one_hot(columns, k), swizzled, bias, routing)
            skip_rejected(kernel, args)
            with poisoned():
                got = kernel.fn(*args)
            assert torch.equal(got, wide[1].T[columns]), f"columns from {first} of {rows}"
