"""The dense product of few and of more tokens against fp64. Runs on a Hopper GPU only."""

import pytest
import torch

from haast.ops import linear

from ..mxfp4.exact import as_bits
from .gpu_cases import (
    DEVICE,
    hopper,  # noqa: F401 (a fixture)
    poisoned,
)
from .gpu_small_cases import LINEAR_SHAPES, MORE_SHAPES, check_linear, linear_case

pytestmark = pytest.mark.usefixtures("hopper")
MMA, WGMMA, CUBLAS, FIXED = linear.kernels
GPT_OSS = ((5120, 2880), (2880, 4096), (32, 2880), (201_088, 2880))
REPLAYS = 300


@pytest.mark.parametrize("num_tokens", [1, 2, 7, 8, 9, 15, 16])
@pytest.mark.parametrize("shape", (*LINEAR_SHAPES, *GPT_OSS), ids=str)
def test_against_fp64(shape, num_tokens):
    for has_bias in (True, False):
        with poisoned():
            symbols = check_linear(*shape, num_tokens, has_bias, DEVICE)
            assert symbols == {f"linear_mma_m{8 if num_tokens <= 8 else 16}"}


@pytest.mark.parametrize("num_tokens", [17, 31, 64, 65, 130, 256])
@pytest.mark.parametrize("shape", (*MORE_SHAPES, *GPT_OSS[:3], (128, 2880), (2560, 2880)), ids=str)
def test_more_tokens_against_fp64(shape, num_tokens):
    if num_tokens > 64 and shape[0] > 256:
        pytest.skip("such products are the library's")
    for has_bias in (True, False):
        with poisoned():
            (symbol,) = check_linear(*shape, num_tokens, has_bias, DEVICE)
            assert symbol.startswith("linear_wgmma_")


@pytest.mark.parametrize("shape", (*LINEAR_SHAPES, GPT_OSS[0]), ids=str)
def test_bits_of_a_token_do_not_depend_on_the_others(shape):
    x, weight, bias = linear_case(*shape, 16, True, DEVICE)
    together = MMA.fn(x, weight, bias)
    for first, last in ((0, 1), (3, 4), (15, 16), (0, 8), (5, 14)):
        alone = MMA.fn(x[first:last].contiguous(), weight, bias)
        assert torch.equal(as_bits(alone), as_bits(together[first:last]))


@pytest.mark.parametrize("shape", (*MORE_SHAPES, *GPT_OSS[:3]), ids=str)
def test_nor_where_there_are_more(shape):
    x, weight, bias = linear_case(*shape, 64, True, DEVICE)
    together = WGMMA.fn(x, weight, bias)
    for first, last in ((0, 17), (30, 64), (1, 64)):
        fewer = WGMMA.fn(x[first:last].contiguous(), weight, bias)
        assert torch.equal(as_bits(fewer), as_bits(together[first:last]))


@pytest.mark.parametrize("k", [64, 192, 2880])
def test_reads_out_the_weight(k):
    """One-hot tokens: the result is the weight, bit for bit."""
    weight = torch.randn(37, k, device=DEVICE).bfloat16()
    for first in range(0, k, 16):
        x = torch.eye(k, dtype=torch.bfloat16, device=DEVICE)[first : first + 16]
        assert torch.equal(MMA.fn(x.contiguous(), weight, None), weight.T[first : first + 16])


@pytest.mark.parametrize("kernel, num_tokens", [(MMA, 3), (WGMMA, 40)], ids=["mma", "wgmma"])
def test_tokens_are_read_after_the_kernel_that_writes_them(kernel, num_tokens):
    """Replays of a chain in which each product starts while the one before it still runs."""
    weights = [torch.randn(2880, 2880, device=DEVICE).bfloat16() / 54 for _ in range(12)]
    start = torch.randn(num_tokens, 2880, device=DEVICE).bfloat16()
    held = start.clone()

    def chain():
        x = held
        for weight in weights:
            x = kernel.fn(x, weight, None)
        return x

    expected = chain().clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = chain()
    other = torch.zeros_like(start)
    for replay in range(REPLAYS):
        held.copy_(other if replay % 2 else start)
        graph.replay()
        assert torch.equal(result, other if replay % 2 else expected), replay


def test_no_rows_and_no_tokens():
    x, weight = (torch.ones(n, 64, dtype=torch.bfloat16, device=DEVICE) for n in (2, 0))
    assert MMA.fn(x, weight, None).shape == (2, 0) and MMA.fn(weight, x, None).shape == (0, 2)
