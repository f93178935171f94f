"""grouped_matmul on ragged shapes, through the kernels of a Hopper GPU.

Where there is none it skips with its reason; MXFP4_GROUPED_TEST_ENABLE=1 turns the skip into a
failure. It uses no fixture of other folders: pytest tests/test_mxfp4_grouped_matmul_ragged.py -q
"""

import os

import pytest
import torch

from haast.bench.machine import why_no_hopper
from haast.mxfp4 import HopperLayout, Mxfp4Weight
from haast.ops import grouped_matmul

ENABLE = "MXFP4_GROUPED_TEST_ENABLE"
LAYOUT = HopperLayout(paired=False)
OVERALL = {torch.float32: 5e-6, torch.bfloat16: 2e-3}
ROW = {torch.float32: 5e-6, torch.bfloat16: 2**-8}
"""Rounding a result once to bf16 costs 1.7e-3 on average, in a short row up to 2^-8"""
MANY = 2000
"""Elements over which the rounding averages out"""
ONE = 127
"""Scale byte of 2^0"""
SIZES = {
    # name: rows of each expert
    "one row": [1],
    "one expert": [37],
    "empty experts": [0, 5, 0, 0, 3, 0],
    "one hot expert": [1, 0, 300, 2, 0],
    "uneven": [7, 8, 9, 63, 64, 65, 1, 129],
    "many rows": [511, 0, 1025, 770],
    "few rows of many experts": [1, 2, 0, 1] * 8,
    "no rows": [0, 0, 0],
}
SHAPES = [(16, 32), (48, 96), (256, 64), (80, 2880), (5760, 160), (256, 2880)]
"""N, K: never equal, K both whole and half blocks of 64"""


@pytest.fixture(autouse=True, scope="module")
def hopper():
    """The kernels run here, or the reason why not."""
    reason = why_no_hopper()
    if reason is not None:
        if os.environ.get(ENABLE) == "1":
            pytest.fail(f"{ENABLE}=1, but {reason}")
        pytest.skip(reason)


def random_weight(experts, n, k, scales=(118, 125), seed=0):
    """Uniformly random codes; scale bytes in range(*scales)."""
    generator = torch.Generator("cuda").manual_seed(seed)
    values = torch.empty(experts, n, k // 2, dtype=torch.uint8, device="cuda")
    found = torch.empty(experts, n, k // 32, dtype=torch.uint8, device="cuda")
    return Mxfp4Weight(
        values.random_(0, 256, generator=generator), found.random_(*scales, generator=generator)
    )


def random_rows(rows, k, seed=1):
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(rows, k, generator=generator, device="cuda").bfloat16()


def offsets(sizes):
    return torch.tensor([0, *sizes], device="cuda").cumsum(0).int()


def exact(x, weight, sizes):
    """[R, N] fp64, expert by expert."""
    parts = torch.split(x.double(), sizes)
    wide = [weight[e].dequantize(torch.float32).double() for e in range(len(sizes))]
    return torch.cat([part @ matrix.T for part, matrix in zip(parts, wide, strict=True)])


def run(x, weight, sizes, out_dtype=torch.bfloat16):
    """The op; memory that it is likely to be given for its result is full of NaN before."""
    poison = torch.full((len(x), weight.shape[1]), torch.nan, dtype=out_dtype, device="cuda")
    del poison
    out = grouped_matmul(x, weight.swizzled(LAYOUT), offsets(sizes), out_dtype)
    assert out.shape == (len(x), weight.shape[1]) and out.dtype == out_dtype
    return out


def check(got, expected):
    """Relative error in the Frobenius norm, of the whole and of the worst row."""
    error = got.double() - expected
    rows = error.norm(dim=1) / expected.norm(dim=1)
    worst = int(rows.nan_to_num(nan=torch.inf).argmax())
    assert rows[worst] <= ROW[got.dtype], f"row {worst} of {len(rows)}: {rows[worst]:.3g}"
    overall = error.norm() / expected.norm()
    assert got.numel() < MANY or overall < OVERALL[got.dtype], f"overall {overall:.3g}"


@pytest.mark.parametrize("out_dtype", OVERALL, ids=str)
@pytest.mark.parametrize("n, k", SHAPES)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_against_fp64(sizes, n, k, out_dtype):
    weight, x = random_weight(len(sizes), n, k), random_rows(sum(sizes), k)
    got = run(x, weight, sizes, out_dtype)
    if sum(sizes):
        check(got, exact(x, weight, sizes))


@pytest.mark.parametrize("rows", [1, 8, 40, 600])
@pytest.mark.parametrize("n, k", SHAPES)
def test_one_hot_rows_read_the_weights_bit_for_bit(n, k, rows):
    """Row r is column r mod K of the identity: the result is that column of its expert."""
    sizes = [rows, 0, rows // 2]
    weight = random_weight(3, n, k, scales=(0, 129))
    columns = torch.arange(sum(sizes), device="cuda") * 7 % k
    x = torch.zeros(sum(sizes), k, dtype=torch.bfloat16, device="cuda")
    x[torch.arange(sum(sizes), device="cuda"), columns] = 1
    wide = weight.dequantize(torch.bfloat16)
    experts = torch.repeat_interleave(
        torch.arange(3, device="cuda"), torch.tensor(sizes, device="cuda")
    )
    expected = wide[experts, :, columns]
    assert torch.equal(run(x, weight, sizes), expected)
    assert torch.equal(run(x, weight, sizes, torch.float32), expected.float())


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("n, k", [(96, 64), (256, 2880)])
def test_integers_are_exact_every_time(sizes, n, k):
    """Weights of scale 1 times -1, 0, 1: sums are multiples of 0.5 that fp32 holds in any order."""
    weight = random_weight(len(sizes), n, k, scales=(ONE, ONE + 1))
    x = torch.randint(-1, 2, (sum(sizes), k), device="cuda").bfloat16()
    expected = exact(x, weight, sizes)
    for _ in range(20):
        assert torch.equal(run(x, weight, sizes, torch.float32).double(), expected)


def test_experts_do_not_leak_into_each_other():
    """NaN in one expert's rows stays there."""
    sizes = [9, 70, 1, 12]
    weight, x = random_weight(4, 48, 96), random_rows(sum(sizes), 96)
    clean = run(x, weight, sizes)
    x[9:79] = torch.nan
    dirty = run(x, weight, sizes)
    assert dirty[9:79].isnan().all()
    assert torch.equal(dirty[:9], clean[:9]) and torch.equal(dirty[79:], clean[79:])


def test_the_same_call_gives_the_same_bits():
    sizes = SIZES["uneven"]
    weight, x = random_weight(len(sizes), 256, 2880), random_rows(sum(sizes), 2880)
    first = run(x, weight, sizes, torch.float32)
    assert all(torch.equal(first, run(x, weight, sizes, torch.float32)) for _ in range(5))
