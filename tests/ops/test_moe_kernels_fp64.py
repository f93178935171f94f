"""moe_up, moe_down and grouped_matmul through every kernel of their tables, against fp64.

No two sizes are equal, K ends within blocks of 64 too, results go to poisoned memory, the same
call twice gives the same bits. Runs on a Hopper GPU only.
"""

import pytest
import torch

from haast.mxfp4 import HopperLayout, Mxfp4Weight
from haast.ops import Routing, moe_up

from .gpu_cases import (
    DEVICE,
    LIMIT,
    MATMULS,
    ROUNDED_TERMS,
    Case,
    Shape,
    build,
    compare,
    exact_swiglu,
    hopper,  # noqa: F401 (a fixture)
    name_of,
    rounds_terms,
    run_twice,
    skip_rejected,
    table,
)

TOKENS = (0, 1, 2, 3, 5, 8, 17, 63, 64, 65, 127, 129, 300, 500, 1000, 2000, 4099)
SPREADS = ("random", "hot", "gaps")
TAILS = Shape(num_experts=5, num_active=3, hidden=352, intermediate=224)
"""both K end in half a block"""
MANY_EXPERTS = Shape(num_experts=128, num_active=4, hidden=192, intermediate=320)
LONG = Shape(num_experts=6, num_active=1, hidden=1568, intermediate=1632)
"""moe_down halves K, into parts of unequal size"""
MODELS = [
    (Shape(32, 4, 2880, 2880), (1, 8, 65, 500, 1000)),
    (Shape(128, 4, 2880, 2880), (65,)),
    (Shape(32, 4, 2880, 1440), (3, 129)),
    (Shape(16, 4, 256, 192), (64, 1000)),
]
"""gpt-oss-20b and -120b, half the intermediate size, haast-tiny"""
CLAMPED = 4.0
"""std of rows at which many |z| are above the limit of SwiGLU"""
PLACES = (6.96875, 7.0, 7.03125, 7.5, 1e4, 3e38)
"""bfloat16 numbers around the limit and far beyond"""


def check(op, kernel, case):
    call = build(op.name, case)
    skip_rejected(kernel, call.args)
    slack = ROUNDED_TERMS if rounds_terms(kernel) else 1.0
    compare(run_twice(kernel, call.args), call.exact(), slack)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("shape", [TAILS, MANY_EXPERTS, LONG], ids=name_of)
@pytest.mark.parametrize("num_tokens", TOKENS)
@table(MATMULS)
def test_bf16(op, kernel, shape, num_tokens, spread):
    check(op, kernel, Case(shape, num_tokens, spread))


@pytest.mark.parametrize("shape", [TAILS, MANY_EXPERTS, LONG], ids=name_of)
@pytest.mark.parametrize("num_tokens", TOKENS)
@table([row for row in MATMULS if row[0].name == "grouped_matmul"])
def test_fp32(op, kernel, shape, num_tokens):
    for spread in SPREADS:
        check(op, kernel, Case(shape, num_tokens, spread, out_dtype=torch.float32))


@pytest.mark.parametrize("num_tokens", [1, 5, 65, 500])
@table(MATMULS)
def test_large_rows(op, kernel, num_tokens):
    """In moe_up both clamps are at work."""
    for spread in SPREADS:
        check(op, kernel, Case(TAILS, num_tokens, spread, std=CLAMPED))


SIZES = [(shape, num_tokens) for shape, sizes in MODELS for num_tokens in sizes]


@pytest.mark.parametrize("shape, num_tokens", SIZES, ids=name_of)
@table(MATMULS)
def test_model_shapes(op, kernel, shape, num_tokens):
    check(op, kernel, Case(shape, num_tokens))
    if op.name == "grouped_matmul":
        check(op, kernel, Case(shape, num_tokens, out_dtype=torch.float32))


def one_expert_routing(num_tokens):
    order = torch.arange(num_tokens, dtype=torch.int32, device=DEVICE)
    return Routing(
        expert_ids=torch.zeros(num_tokens, 1, dtype=torch.int32, device=DEVICE),
        expert_weights=torch.ones(num_tokens, 1, device=DEVICE),
        expert_offs=torch.tensor([0, num_tokens], dtype=torch.int32, device=DEVICE),
        gather_idx=order,
        scatter_idx=order,
    )


@pytest.mark.parametrize("num_tokens", [3, 15, 150])
@pytest.mark.parametrize("kernel", moe_up.kernels, ids=name_of)
def test_limits_of_swiglu(kernel, num_tokens):
    """Rows of zeros leave the bias: every pair of a gate and an up part around +-7.

    Beyond its limit a number gives the very bits of the limit.
    """
    places = torch.tensor([*PLACES, 0.0, 1.0], device=DEVICE)
    gates, ups = torch.meshgrid(*[torch.cat((places, -places))] * 2, indexing="ij")
    bias = torch.stack((gates, ups), dim=-1).reshape(1, -1).bfloat16()
    values = torch.full((1, bias.shape[1], 16), 0x77, dtype=torch.uint8, device=DEVICE)
    scales = torch.full((1, bias.shape[1], 1), 127, dtype=torch.uint8, device=DEVICE)
    weight = Mxfp4Weight(values, scales).swizzled(HopperLayout(paired=True))
    x = torch.zeros(num_tokens, 32, dtype=torch.bfloat16, device=DEVICE)
    args = (x, weight, bias, one_expert_routing(num_tokens), LIMIT)
    skip_rejected(kernel, args)
    got = run_twice(kernel, args)
    compare(got, exact_swiglu(bias, LIMIT).expand(num_tokens, -1))
    expected = exact_swiglu(bias, LIMIT).view(gates.shape)
    for row in got.view(num_tokens, *gates.shape):
        torch.testing.assert_close(row.double(), expected, rtol=2**-8, atol=1e-30)
        at_limit = places >= LIMIT
        assert (row[: len(places)][at_limit] == row[1]).all(), "gates beyond the limit differ"
        assert (row[:, : len(places)][:, at_limit] == row[:, 1:2]).all(), "up parts beyond 7"
        low = row[:, len(places) :]
        assert (low[:, at_limit] == low[:, 1:2]).all(), "up parts beyond -7"


@pytest.mark.parametrize("num_tokens", [3, 15, 500])
@pytest.mark.parametrize("kernel", moe_up.kernels, ids=name_of)
def test_nan_stays_nan_and_in_its_rows(kernel, num_tokens):
    x, *rest = build("moe_up", Case(TAILS, num_tokens)).args
    x = x.clone()
    x[1] = torch.nan
    skip_rejected(kernel, (x, *rest))
    is_nan = kernel.fn(x, *rest).isnan()
    has_nan_input = rest[2].gather_idx == 1
    assert torch.equal(is_nan.all(1), has_nan_input) and torch.equal(is_nan.any(1), has_nan_input)


def test_rows_at_an_odd_place_are_refused():
    x, *rest = build("moe_up", Case(TAILS, 3)).args
    odd = torch.zeros(x.numel() + 1, dtype=x.dtype, device=DEVICE)[1:].view_as(x)
    with pytest.raises(ValueError, match="x must begin at a multiple of 16 bytes in memory"):
        moe_up(odd, *rest)
