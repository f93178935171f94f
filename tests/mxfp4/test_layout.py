"""The kernels' order of bytes: what a kernel decodes, the way back, sizes, refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from haast.mxfp4 import MAX_SCALE, HopperLayout, dequantize, pack

from .exact import as_bits
from .kernel_decode import decoded

LAYOUTS = (HopperLayout(paired=False), HopperLayout(paired=True))
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=["rows in order", "paired"])


def random_bytes(*shape, seed=0):
    """Values and scales of random weights [..., N, K]; scales 0..128."""
    *rows, k = shape
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(256, (*rows, k // 2), generator=generator, dtype=torch.uint8)
    scales = torch.randint(129, (*rows, k // 32), generator=generator, dtype=torch.uint8)
    return values, scales


def assert_kernel_reads(layout, values, scales):
    """A kernel decodes the numbers of [E, N, K] weights, bit for bit."""
    k = 2 * values.shape[-1]
    storage = layout.swizzle(values, scales)
    for dtype in (torch.float64, torch.bfloat16):
        expected = dequantize(values, scales, dtype).double()
        for matrix, numbers in zip(storage, expected, strict=True):
            got = torch.from_numpy(decoded(matrix.numpy(), k, layout.paired))
            assert torch.equal(as_bits(got), as_bits(numbers))


@layouts
def test_a_kernel_reads_every_code_at_every_place(layout):
    """Of the 16 matrices each has another code at a place, and neighbours differ."""
    matrix, row, column = torch.meshgrid(*map(torch.arange, (16, 16, 64)), indexing="ij")
    codes = ((matrix + 3 * row + 7 * column + column // 16) % 16).to(torch.uint8)
    assert_kernel_reads(layout, pack(codes), torch.full((16, 16, 2), 127, dtype=torch.uint8))


@layouts
def test_a_kernel_reads_every_scale(layout):
    """Each byte from 0 to 128, no neighbours alike, with every code."""
    scales = (torch.arange(16 * 10) % 129).to(torch.uint8).view(1, 16, 10)
    assert scales.unique().tolist() == list(range(MAX_SCALE + 1))
    codes = torch.arange(16, dtype=torch.uint8).repeat(16, 20)
    assert_kernel_reads(layout, pack(codes)[None], scales)


@layouts
@pytest.mark.parametrize("n, k", [(16, 32), (48, 64), (32, 96), (16, 160), (64, 352), (48, 1440)])
def test_a_kernel_reads_random_weights(layout, n, k):
    assert_kernel_reads(layout, *random_bytes(2, n, k))


WHOLE = [(1, 16, 32), (3, 48, 64), (3, 16, 96), (2, 720, 96), (1, 48, 1440), (2, 16, 2880)]
SHAPES = [*WHOLE, (16, 32), (2, 2, 32, 32), (0, 16, 32), (3, 0, 64), (3, 16, 0), (0, 0, 0)]


@layouts
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_way_back_is_exact(layout, shape):
    values, scales = random_bytes(*shape)
    storage = layout.swizzle(values, scales)
    assert storage.shape == layout.storage_shape(shape) and storage.dtype == torch.uint8
    assert storage.is_contiguous()
    back = layout.unswizzle(storage, shape[-1])
    assert torch.equal(back[0], values) and torch.equal(back[1], scales)
    assert (back[0].dtype, back[1].dtype) == (torch.uint8, torch.uint8)


SIZES = st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 7), st.integers(0, 1 << 32))


@layouts
@settings(deadline=None)
@given(SIZES)
def test_any_weight_is_read_and_comes_back(layout, sizes):
    experts, tiles, groups, seed = sizes
    values, scales = random_bytes(experts, 16 * tiles, 32 * groups, seed=seed)
    assert_kernel_reads(layout, values, scales)
    back = layout.unswizzle(layout.swizzle(values, scales), 32 * groups)
    assert torch.equal(back[0], values) and torch.equal(back[1], scales)


def test_storage_shape():
    layout = HopperLayout(paired=True)
    assert layout.storage_shape((32, 5760, 2880)) == (32, 360, 45, 544)
    assert layout.storage_shape((2, 4, 32, 96)) == (2, 4, 2, 2, 544)
    assert layout.storage_shape((16, 32)) == (1, 1, 544)


@layouts
def test_padding_is_zero_codes_and_the_smallest_scale(layout):
    """The only padding: the second half of the last block where K ends in its middle."""
    storage = layout.swizzle(*random_bytes(16, 32))[0, 0]
    words = storage[:512].view(32, 4, 4)
    assert words[:, :2].any() and not words[:, 2:].any()
    assert (storage[512:].view(8, 2, 2)[:, 1] == 126).all()


def test_a_view_that_is_not_contiguous():
    values, scales = random_bytes(4, 3, 32, 96)
    layout = HopperLayout(paired=True)
    storage = layout.swizzle(values.transpose(0, 1), scales.transpose(0, 1))
    assert torch.equal(storage, layout.swizzle(values, scales).transpose(0, 1))
    back = layout.unswizzle(storage.transpose(0, 1), 96)
    assert torch.equal(back[0], values) and torch.equal(back[1], scales)


class Allocations(TorchDispatchMode):
    """Records the bytes of every storage made while it is on."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        known = {
            x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if is_tensor(x)
        }
        for x in filter(is_tensor, tree_leaves(out)):
            if x.untyped_storage().data_ptr() not in known:
                self.sizes.append(x.untyped_storage().nbytes())
        return out


def is_tensor(x):
    return isinstance(x, torch.Tensor)


@layouts
def test_scratch_is_that_of_one_matrix(layout):
    """Whatever the number of experts, nothing but the result is larger than a byte an element."""
    values, scales = random_bytes(64, 64, 320)
    with Allocations() as swizzling:
        storage = layout.swizzle(values, scales)
    with Allocations() as unswizzling:
        layout.unswizzle(storage, 320)
    *scratch, result = sorted(swizzling.sizes)
    assert result == storage.nbytes and 0 < scratch[-1] <= 64 * 320
    *scratch, _, result = sorted(unswizzling.sizes)
    assert result == values.nbytes and 0 < scratch[-1] <= 64 * 320


@layouts
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_gpu_makes_the_same_bytes(layout, shape):
    values, scales = random_bytes(*shape)
    storage = layout.swizzle(values.cuda(), scales.cuda())
    assert storage.device.type == "cuda"
    assert torch.equal(storage.cpu(), layout.swizzle(values, scales))
    back = layout.unswizzle(storage, shape[-1])
    assert torch.equal(back[0].cpu(), values) and torch.equal(back[1].cpu(), scales)


@pytest.mark.parametrize("shape", [(3, 24, 64), (8, 32), (16, 48), (16, 16)])
def test_shapes_that_do_not_tile(shape):
    with pytest.raises(ValueError) as error:
        HopperLayout(paired=False).storage_shape(shape)
    assert str(error.value) == (
        f"weight [..., N, K] is {list(shape)}; N must be a multiple of 16 and K of 32"
    )


def refusal(values, scales):
    with pytest.raises(ValueError) as error:
        HopperLayout(paired=False).swizzle(values, scales)
    return str(error.value)


def test_swizzle_refuses_what_is_no_weight():
    values, scales = random_bytes(3, 16, 64)
    assert refusal(*random_bytes(3, 24, 64)).startswith("weight [..., N, K] is [3, 24, 64]; N must")
    assert refusal(values.int(), scales) == (
        "values and scales must be uint8; got torch.int32 and torch.uint8"
    )
    assert refusal(values, scales.char()).endswith("got torch.uint8 and torch.int8")
    for wrong in ((values[..., 1:], scales), (values, scales[:2]), (values[0, 0], scales[0, 0])):
        shapes = "values {} and scales {}".format(*(list(x.shape) for x in wrong))
        assert refusal(*wrong) == (
            f"{shapes} do not belong together: "
            "values must be [..., N, K/2] and scales [..., N, K/32]"
        )


@pytest.mark.parametrize("byte", [129, 254, 255])
def test_a_scale_that_the_layout_cannot_hold(byte):
    values, scales = random_bytes(3, 16, 64)
    scales[1, 7, 1] = scales[2, 0, 0] = byte
    assert refusal(values, scales) == f"scale byte {byte} at [1, 7, 1]; allowed are 0..128"


@pytest.mark.parametrize(
    "shape, k", [((2, 1, 1, 544), 96), ((2, 1, 1, 544), 48), ((2, 1, 1, 512), 64), ((1, 544), 64)]
)
def test_storage_of_another_k(shape, k):
    with pytest.raises(ValueError) as error:
        HopperLayout(paired=False).unswizzle(torch.zeros(shape, dtype=torch.uint8), k)
    assert str(error.value) == (
        f"storage {list(shape)} is none of K = {k}: "
        "it must be [..., N/16, ceil(K/64), 544] with K a multiple of 32"
    )


def test_storage_of_another_dtype():
    with pytest.raises(ValueError, match="^storage must be uint8; got torch.float32$"):
        HopperLayout(paired=False).unswizzle(torch.zeros(1, 1, 544), 64)
