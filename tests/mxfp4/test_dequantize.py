"""Decoding: every code with every scale byte, bit for bit."""

import pytest
import torch

from haast.mxfp4 import SCALE_NAN, Mxfp4Weight, dequantize, pack, unpack

from .exact import INT, as_bits, bits, number

DTYPES = (torch.bfloat16, torch.float32, torch.float64)


def all_codes(scale_bytes):
    """Values [S, 16] holding each code twice in order, and scales [S, 1]."""
    codes = torch.arange(16, dtype=torch.uint8).repeat(2)
    scales = torch.tensor(scale_bytes, dtype=torch.uint8)[:, None]
    return pack(codes).expand(len(scale_bytes), -1), scales


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_code_and_scale_is_exact(dtype):
    decoded = dequantize(*all_codes(range(255)), dtype)
    assert decoded.dtype == dtype
    rows = [[bits(number(code, scale), dtype) for code in range(16)] for scale in range(255)]
    expected = torch.tensor(rows, dtype=INT[dtype]).repeat(1, 2)
    assert torch.equal(as_bits(decoded), expected)


@pytest.mark.parametrize(
    "scale, one",
    [(0, 2.0**-127), (1, 2.0**-126), (126, 0.5), (127, 1.0), (128, 2.0), (254, 2.0**127)],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_scale_byte_by_name(scale, one, dtype):
    decoded = dequantize(*all_codes([scale]), dtype).double()
    magnitudes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64) * one
    if dtype != torch.float64:
        magnitudes[magnitudes >= 2.0**128] = torch.inf
    assert torch.equal(decoded[0, :8], magnitudes)
    assert torch.equal(decoded[0, 8:16], -magnitudes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scale_byte_255_is_nan_in_its_group_alone(dtype):
    assert SCALE_NAN == 255
    values = all_codes([0])[0].repeat(1, 3)
    decoded = dequantize(values, torch.tensor([[127, 255, 127]], dtype=torch.uint8), dtype)
    assert decoded.isnan().nonzero()[:, 1].tolist() == list(range(32, 64))


def test_the_low_nibble_comes_first():
    packed = torch.tensor([[0x21, 0xF0]], dtype=torch.uint8)
    assert unpack(packed).tolist() == [[1, 2, 0, 15]]
    assert pack(torch.tensor([1, 2, 0, 15], dtype=torch.uint8)).tolist() == [0x21, 0xF0]


def test_unpack_inverts_pack():
    codes = torch.cartesian_prod(*[torch.arange(16, dtype=torch.uint8)] * 4)
    assert pack(codes).shape == (16**4, 2)
    assert torch.equal(unpack(pack(codes)), codes)


def test_pack_inverts_unpack():
    values = torch.arange(256, dtype=torch.uint8).view(4, 2, 32)
    assert unpack(values).shape == (4, 2, 64)
    assert torch.equal(pack(unpack(values)), values)


def test_each_group_has_its_own_scale():
    """Asymmetric, no two scales alike: axes or groups mixed up would show."""
    scales = torch.arange(100, 100 + 3 * 5 * 2, dtype=torch.uint8).view(3, 5, 2)
    values = torch.full((3, 5, 32), 0x22, dtype=torch.uint8)
    decoded = dequantize(values, scales, torch.float32)
    expected = 2.0 ** (scales.float() - 127)
    assert torch.equal(decoded, expected.repeat_interleave(32, dim=-1))


def test_nothing_to_decode():
    empty = torch.empty(0, 16, dtype=torch.uint8), torch.empty(0, 1, dtype=torch.uint8)
    assert dequantize(*empty).shape == (0, 32)


@pytest.mark.parametrize(
    "values, scales",
    [
        ((2, 16), (2, 2)),
        ((2, 16), (3, 1)),
        ((2, 32), (2, 1)),
        ((16,), (2, 1)),
        ((2, 3, 16), (6, 1)),
    ],
)
def test_shapes_that_do_not_belong_together(values, scales):
    message = (
        f"values {list(values)} and scales {list(scales)} do not belong together: "
        "values must be [..., K/2] and scales [..., K/32]"
    )
    with pytest.raises(ValueError) as error:
        dequantize(torch.zeros(values, dtype=torch.uint8), torch.zeros(scales, dtype=torch.uint8))
    assert str(error.value) == message


@pytest.fixture
def weight():
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(256, (3, 5, 32), generator=generator).to(torch.uint8)
    scales = torch.randint(120, 130, (3, 5, 2), generator=generator).to(torch.uint8)
    return Mxfp4Weight(values, scales)


def test_weight_shape_and_bytes(weight):
    assert weight.shape == (3, 5, 64)
    assert weight.nbytes == 3 * 5 * 64 // 2 + 3 * 5 * 2


def test_weight_index_is_one_matrix(weight):
    one = weight[2]
    assert one.shape == (5, 64)
    assert torch.equal(one.values, weight.values[2]) and torch.equal(one.scales, weight.scales[2])
    whole = weight.dequantize(torch.bfloat16)
    assert whole.dtype == torch.bfloat16 and whole.shape == weight.shape
    assert torch.equal(one.dequantize(torch.bfloat16), whole[2])
