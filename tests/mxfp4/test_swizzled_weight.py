"""A weight in the kernels' order is the same weight."""

import pytest
import torch

from haast.mxfp4 import MAX_ELEMENT, MAX_SCALE, HopperLayout, Mxfp4Weight, dequantize, quantize

from .exact import as_bits

LAYOUT = HopperLayout(paired=True)


@pytest.fixture
def weight():
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(256, (3, 32, 48), generator=generator, dtype=torch.uint8)
    scales = torch.randint(129, (3, 32, 3), generator=generator, dtype=torch.uint8)
    return Mxfp4Weight(values, scales)


def test_what_it_says_of_itself(weight):
    swizzled = weight.swizzled(LAYOUT)
    assert swizzled.shape == weight.shape == (3, 32, 96) and swizzled.k == 96
    assert swizzled.layout is LAYOUT and swizzled.device == torch.device("cpu")
    assert swizzled.nbytes == swizzled.storage.numel() == 3 * 2 * 2 * 544


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_it_is_the_same_numbers_and_bytes(weight, paired, dtype):
    swizzled = weight.swizzled(HopperLayout(paired))
    expected = weight.dequantize(dtype)
    assert torch.equal(as_bits(swizzled.dequantize(dtype)), as_bits(expected))
    assert torch.equal(as_bits(swizzled[2].dequantize(dtype)), as_bits(expected[2]))
    back = swizzled.unswizzled()
    assert torch.equal(back.values, weight.values) and torch.equal(back.scales, weight.scales)


def test_index_is_one_matrix_of_the_same_storage(weight):
    swizzled = weight.swizzled(LAYOUT)
    one = swizzled[1]
    assert one.shape == (32, 96) and one.layout is LAYOUT
    assert one.storage.data_ptr() == swizzled.storage[1].data_ptr()
    assert torch.equal(one.storage, weight[1].swizzled(LAYOUT).storage)


def test_the_largest_element():
    """Whatever quantises without loss and is no larger has a scale that the layout holds."""
    x = torch.tensor([[MAX_ELEMENT, 1.0] * 16], dtype=torch.bfloat16)
    values, scales = quantize(x)
    assert scales.item() == MAX_SCALE and torch.equal(dequantize(values, scales), x)
    assert quantize(x * 4 / 3)[1].item() == MAX_SCALE + 1
