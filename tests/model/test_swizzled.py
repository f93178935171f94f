"""Experts in the kernels' order are the same network, from every source, with half a block over."""

import pytest
import torch

from haast.model.checkpoint import CheckpointError, open_checkpoint
from haast.model.parameters import EXPERT_LAYOUTS
from haast.model.random_weights import random_parameters
from haast.model.weights import load_parameters
from haast.mxfp4 import HopperLayout, Mxfp4Weight, SwizzledWeight

from .conftest import SEED
from .helpers import CPU, logits
from .test_weights import LAYOUTS, UP, assert_same, damaged, load

TOKENS = [5, 299, 17, 4, 4, 123, 88, 260, 31, 7, 64]


def load_swizzled(folder, encoding="mxfp4"):
    return load_parameters(open_checkpoint(folder), encoding, CPU, is_swizzled=True)


def unswizzled(weight):
    return weight.unswizzled() if isinstance(weight, SwizzledWeight) else weight


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_network(tiny, layout):
    parameters = load_swizzled(tiny / layout)
    plain = load(tiny / layout, "mxfp4")
    for layer, other in zip(parameters.layers, plain.layers, strict=True):
        for role in ("up_weight", "down_weight"):
            weight, expected = getattr(layer, role), getattr(other, role)
            assert weight.layout == EXPERT_LAYOUTS[role] and weight.shape == expected.shape
            assert torch.equal(weight.unswizzled().values, expected.values)
            assert torch.equal(weight.unswizzled().scales, expected.scales)
        assert torch.equal(layer.up_bias, other.up_bias)
    config = open_checkpoint(tiny / layout).config
    assert_same(parameters, random_parameters(config, "mxfp4", CPU, SEED))


def test_gate_and_up_stay_together():
    assert EXPERT_LAYOUTS == {
        "up_weight": HopperLayout(paired=True),
        "down_weight": HopperLayout(paired=False),
    }


def test_random_experts_are_the_same_network(tiny):
    config = open_checkpoint(tiny / "hf").config
    parameters = random_parameters(config, "mxfp4", CPU, SEED, is_swizzled=True)
    assert isinstance(parameters.layers[2].down_weight, SwizzledWeight)
    assert parameters.layers[2].up_weight.layout.paired
    assert_same(parameters, load(tiny / "hf", "mxfp4"))


def test_dense_experts_have_no_order(tiny):
    config = open_checkpoint(tiny / "hf").config
    dense = random_parameters(config, "bfloat16", CPU, SEED, is_swizzled=True)
    for parameters in (dense, load_swizzled(tiny / "hf", "bfloat16")):
        assert isinstance(parameters.layers[0].up_weight, torch.Tensor)
        assert_same(parameters, load(tiny / "hf", "mxfp4"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_logits_are_the_same_bit_for_bit(tiny, dtype):
    config = open_checkpoint(tiny / "hf").config
    expected = logits(config, load(tiny / "hf", "mxfp4").to(dtype), TOKENS)
    swizzled = load_swizzled(tiny / "hf").to(dtype)
    assert swizzled.embedding.dtype == dtype and swizzled.layers[1].up_bias.dtype == dtype
    assert isinstance(swizzled.layers[1].up_weight, SwizzledWeight)
    assert torch.equal(logits(config, swizzled, TOKENS), expected)


def test_bytes_are_those_held(tiny):
    """H = 96 leaves half a block of padding, I = 64 none."""
    swizzled, plain = load_swizzled(tiny / "hf"), load(tiny / "hf", "mxfp4")
    padding = 3 * 5 * 128 * 32 * 17 // 32
    assert swizzled.nbytes == plain.nbytes + padding


@pytest.mark.parametrize("byte, is_swizzled", [(128, True), (129, False), (254, False)])
def test_scales_in_range(tiny, tmp_path, byte, is_swizzled):
    folder = damaged(tiny, tmp_path, "hf", f"{UP}_scales", (3, 100, 2), byte)
    checkpoint = open_checkpoint(folder)
    parameters = load_parameters(checkpoint, "mxfp4", CPU, is_swizzled=is_swizzled)
    assert unswizzled(parameters.layers[1].up_weight).scales[3, 100, 2] == byte


def test_a_scale_beyond_the_kernels_is_refused_with_its_place(tiny, tmp_path):
    folder = damaged(tiny, tmp_path, "hf", f"{UP}_scales", (3, 100, 2), 129)
    with pytest.raises(CheckpointError) as error:
        load_swizzled(folder)
    assert str(error.value).endswith(
        f"safetensors: tensor '{UP}_scales' has scale byte 129 at [3, 100, 2]; "
        "GPU kernels take 0..128; load it with --quantization-encoding bfloat16"
    )
    assert isinstance(load_swizzled(folder, "bfloat16").layers[1].up_weight, torch.Tensor)


def test_scale_byte_255_says_that_it_is_nan(tiny, tmp_path):
    folder = damaged(tiny, tmp_path, "hf", f"{UP}_scales", (3, 100, 2), 255)
    words = r"has scale byte 255 \(NaN\) at \[3, 100, 2\]$"
    with pytest.raises(CheckpointError, match=words):
        load_swizzled(folder)


def test_a_converted_element_beyond_the_kernels_is_refused_with_its_place(tiny, tmp_path):
    """A group of 16 and zeros is exact in MXFP4, with a scale byte of 129."""
    index = (4, slice(64, 96), 127)
    column = torch.zeros(32, dtype=torch.bfloat16)
    column[30] = -16
    folder = damaged(tiny, tmp_path, "bf16", UP, index, column)
    assert isinstance(load(folder, "mxfp4").layers[1].up_weight, Mxfp4Weight)
    with pytest.raises(CheckpointError) as error:
        load_swizzled(folder)
    assert str(error.value).endswith(
        f"safetensors: tensor '{UP}' at [4, 94, 127] is -16, which is beyond the largest "
        "magnitude that GPU kernels take, 12; load it with --quantization-encoding bfloat16"
    )


def test_a_converted_element_of_the_largest_magnitude(tiny, tmp_path):
    column = torch.zeros(32, dtype=torch.bfloat16)
    column[30] = -12
    folder = damaged(tiny, tmp_path, "bf16", UP, (4, slice(64, 96), 127), column)
    assert_same(load_swizzled(folder), load(folder, "bfloat16"))
