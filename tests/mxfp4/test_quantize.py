"""Rounding to MXFP4: each tie by name, the scale rule, the ends of the range, refusals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from haast.mxfp4 import dequantize, quantize, unpack

from .exact import as_bits, number, round_to_code, scale_of

BF16_MAX = 3.3895313892515355e38
FP32_SUBNORMAL = 2.0**-149


def group(*numbers, dtype=torch.float32):
    """32 numbers, zeros after those given."""
    return torch.tensor([*numbers, *[0.0] * (32 - len(numbers))], dtype=dtype)


def after(x):
    return torch.nextafter(torch.tensor(x), torch.tensor(math.inf)).item()


def before(x):
    return torch.nextafter(torch.tensor(x), torch.tensor(-math.inf)).item()


def rounded(x):
    """One number in a group whose scale is 1."""
    values, scales = quantize(group(x, 4.0))
    assert scales.tolist() == [127]
    return dequantize(values, scales, torch.float32)[0].item()


TIES = {
    "1/4 down to 0": (0.25, 0.0),
    "3/4 up to 1": (0.75, 1.0),
    "5/4 down to 1": (1.25, 1.0),
    "7/4 up to 2": (1.75, 2.0),
    "5/2 down to 2": (2.5, 2.0),
    "7/2 up to 4": (3.5, 4.0),
    "5 down to 4": (5.0, 4.0),
}
GRID = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


@pytest.mark.parametrize("tie, to", TIES.values(), ids=TIES)
@pytest.mark.parametrize("sign", [1, -1])
def test_ties_go_to_the_even_code(tie, to, sign):
    below, above = max(g for g in GRID if g < tie), min(g for g in GRID if g > tie)
    assert rounded(sign * tie) == sign * to
    assert rounded(sign * before(tie)) == sign * below
    assert rounded(sign * after(tie)) == sign * above


@pytest.mark.parametrize("x", [6.0, 6.5, 7.0, 7.5, before(8.0)])
def test_elements_saturate_at_six(x):
    """Nothing between 6 and 8 can raise the scale: floor(log2) is 2 up to 8."""
    values, scales = quantize(group(x, -x))
    assert scales.tolist() == [127]
    assert dequantize(values, scales, torch.float32)[:2].tolist() == [6.0, -6.0]


@pytest.mark.parametrize("exponent", [-124, -30, -1, 0, 1, 2, 3, 64, 126])
def test_the_scale_is_the_exponent_of_the_largest_less_two(exponent):
    power = 2.0**exponent
    for amax, scale in ((power, exponent), (1.5 * power, exponent), (before(power), exponent - 1)):
        for sign in (1, -1):
            scales = quantize(group(0.1 * power, sign * amax))[1]
            assert scales.tolist() == [max(scale - 2 + 127, 0)], amax


def test_zeros_keep_their_sign_and_take_the_smallest_scale():
    values, scales = quantize(group(0.0, -0.0, 0.0, -0.0))
    assert scales.tolist() == [0]
    assert unpack(values)[:5].tolist() == [0, 8, 0, 8, 0]


def test_numbers_that_round_to_zero_keep_their_sign():
    values, _ = quantize(group(6.0, 0.1, -0.1, 0.25, -0.25))
    assert unpack(values)[:5].tolist() == [7, 0, 8, 0, 8]


@pytest.mark.parametrize(
    "x, code", [(2.0**-133, 0), (2.0**-129, 0), (2.0**-128, 1), (2.0**-127, 2), (3 * 2.0**-127, 5)]
)
def test_the_smallest_scale_bounds_the_range_from_below(x, code):
    """Subnormal in bf16; the smallest number but zero is half of 2^-127, and half of that ties."""
    values, scales = quantize(group(x, -x, dtype=torch.bfloat16))
    assert scales.tolist() == [0]
    assert unpack(values)[:2].tolist() == [code, code + 8]


def test_the_smallest_fp32_subnormal_is_zero():
    values, scales = quantize(group(FP32_SUBNORMAL))
    assert scales.tolist() == [0] and unpack(values)[0] == 0


def test_the_largest_bf16():
    values, scales = quantize(group(BF16_MAX, -BF16_MAX, 2.0**127, dtype=torch.bfloat16))
    assert scales.tolist() == [127 + 125]
    decoded = dequantize(values, scales, torch.float64)[:3].tolist()
    assert decoded == [6 * 2.0**125, -6 * 2.0**125, 2.0**127]


def test_shapes_and_groups():
    """Asymmetric, every group of another magnitude."""
    scale = 2.0 ** torch.arange(-6, 6).view(3, 2, 2).repeat_interleave(32, dim=-1)
    x = torch.linspace(-6, 6, 64).expand(3, 2, -1) * scale
    values, scales = quantize(x)
    assert values.shape == (3, 2, 32) and scales.shape == (3, 2, 2)
    assert values.dtype == scales.dtype == torch.uint8
    flat = x.reshape(-1, 32).tolist()
    assert scales.flatten().tolist() == [scale_of(numbers) for numbers in flat]


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_only_finite_numbers(bad):
    with pytest.raises(ValueError, match="^only finite numbers can be quantised; found inf or NaN"):
        quantize(group(1.0, bad))


@pytest.mark.parametrize("size", [1, 31, 33, 48])
def test_the_axis_must_be_whole_groups(size):
    with pytest.raises(ValueError, match=f"^last axis must be a multiple of 32; got {size}$"):
        quantize(torch.zeros(2, size))


FINITE_BF16 = st.integers(0, 0xFFFF).filter(lambda word: word & 0x7F80 != 0x7F80)
NEAR = st.integers(0x3E00, 0x4100)
"""bf16 from 1/8 to 8, where a group has many codes and ties"""
WORDS = st.one_of(
    st.lists(FINITE_BF16, min_size=32, max_size=32),
    st.lists(NEAR, min_size=32, max_size=32),
    st.lists(st.integers(0, 0x0200), min_size=32, max_size=32),
)


@settings(deadline=None)
@given(WORDS)
def test_quantize_equals_exact_arithmetic(words):
    x = torch.tensor(words, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    numbers = x.tolist()
    scale = scale_of(numbers)
    values, scales = quantize(x)
    assert scales.tolist() == [scale]
    assert unpack(values).tolist() == [round_to_code(n, scale) for n in numbers]


RANGES = {"lowest": st.integers(0, 4), "common": st.integers(90, 140), "highest": st.just(252)}


@pytest.mark.parametrize("scale", RANGES.values(), ids=RANGES)
@settings(deadline=None)
@given(data=st.data())
def test_what_was_decoded_quantises_to_itself(scale, data):
    values = torch.tensor(list(data.draw(st.binary(min_size=48, max_size=48))), dtype=torch.uint8)
    scales = torch.tensor([data.draw(scale) for _ in range(3)], dtype=torch.uint8)
    decoded = dequantize(values, scales)
    again = dequantize(*quantize(decoded))
    assert torch.equal(as_bits(again), as_bits(decoded))


def test_a_group_of_small_codes_takes_a_smaller_scale():
    """The bytes change, the numbers do not."""
    values, scales = quantize(group(*[number(1, 127)] * 32))
    assert scales.tolist() == [127 - 1 - 2] and set(unpack(values).tolist()) == {6}
    assert set(dequantize(values, scales, torch.float32).tolist()) == {0.5}


def test_refuses_other_dtypes():
    with pytest.raises(ValueError, match=r"only bfloat16 and float32 .* got torch.float64"):
        quantize(torch.ones(32, dtype=torch.float64))
