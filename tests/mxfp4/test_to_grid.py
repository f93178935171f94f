"""The proof that a dense weight is MXFP4 in disguise."""

import pytest
import torch

from haast.mxfp4 import dequantize, to_grid
from haast.mxfp4 import format as mxfp4_format

from .exact import as_bits


@pytest.fixture
def on_grid():
    """[3, 4, 96] bf16 with every code, decoded from random bytes of three scales."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randint(256, (3, 4, 48), generator=generator).to(torch.uint8)
    scales = torch.randint(118, 121, (3, 4, 3), generator=generator).to(torch.uint8)
    return dequantize(values, scales)


def test_grid_members_are_proven(on_grid):
    values, scales, exact = to_grid(on_grid)
    assert exact.shape == on_grid.shape and exact.dtype == torch.bool and exact.all()
    assert values.shape == (3, 4, 48) and scales.shape == (3, 4, 3)
    assert torch.equal(as_bits(dequantize(values, scales)), as_bits(on_grid))


@pytest.mark.parametrize("index", [(0, 0, 0), (1, 3, 31), (2, 0, 32), (2, 3, 95)])
def test_one_element_off_the_grid_is_found(on_grid, index):
    """A neighbour in bf16 of a grid member other than zero; the group's scale stays."""
    group = index[-1] // 32 * 32
    on_grid[*index[:-1], group + 7] = on_grid[*index[:-1], group : group + 32].abs().max()
    on_grid[index] = 1.5 * 2.0**-8 * (1 + 2.0**-7)
    exact = to_grid(on_grid)[2]
    assert (~exact).nonzero().tolist() == [list(index)]


def test_too_wide_a_range_is_off_the_grid():
    """1/2 and 8 need 16 steps of a ratio that has 12."""
    x = torch.zeros(1, 64, dtype=torch.bfloat16)
    x[0, 3], x[0, 9] = 0.5, 8.0
    x[0, 40], x[0, 50] = 0.5, 6.0
    assert (~to_grid(x)[2]).nonzero().tolist() == [[0, 3]]


def test_minus_zero_is_kept_apart_from_zero():
    x = torch.tensor([1.0, 0.0, -0.0, -1.0] * 8, dtype=torch.bfloat16)
    values, scales, exact = to_grid(x)
    assert exact.all()
    signs = torch.signbit(dequantize(values, scales))
    assert signs.tolist() == [False, False, True, True] * 8


def test_minus_zero_decoded_as_zero_would_be_flagged(monkeypatch):
    """The comparison is of bits, not of numbers."""

    def unsigned(*args):
        return dequantize(*args) + 0.0

    monkeypatch.setattr(mxfp4_format, "dequantize", unsigned)
    x = torch.tensor([1.0, 0.0, -0.0, -1.0] * 8, dtype=torch.bfloat16)
    assert to_grid(x)[2].tolist() == [True, True, False, True] * 8


def test_the_axis_must_be_whole_groups():
    with pytest.raises(ValueError, match="multiple of 32; got 16"):
        to_grid(torch.zeros(2, 16, dtype=torch.bfloat16))
