"""rms_norm and linear against loops in fp64."""

import math

import pytest
import torch

from haast import ops

from .pinned import close, normal, reference

rms_norm, linear = map(reference, (ops.rms_norm, ops.linear))
add_rms_norm = reference(ops.add_rms_norm)
DTYPES = [(torch.float32, 2e-6), (torch.bfloat16, 2**-8)]


@pytest.mark.parametrize("dtype, rel", DTYPES)
@pytest.mark.parametrize("num_tokens", [0, 1, 7])
def test_rms_norm(dtype, rel, num_tokens):
    x, weight = normal(num_tokens, 48, dtype=dtype) * 3, normal(48, seed=1, dtype=dtype)
    eps = 0.3
    expected = torch.empty(num_tokens, 48, dtype=torch.float64)
    for t, row in enumerate(x.tolist()):
        root = math.sqrt(sum(v * v for v in row) / 48 + eps)
        expected[t] = torch.tensor(
            [v / root * w for v, w in zip(row, weight.tolist(), strict=True)]
        )
    got = rms_norm(x, weight, eps)
    assert got.dtype == dtype
    close(got, expected, rel)


def test_rms_norm_rounds_once():
    """In bf16 the weight is applied before rounding, so the result is the nearest bf16."""
    x, weight = normal(5, 48, dtype=torch.bfloat16), normal(48, seed=1, dtype=torch.bfloat16)
    wide = x.double()
    exact = wide * (wide.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.double()
    assert torch.equal(rms_norm(x, weight, 1e-5), exact.float().to(torch.bfloat16))


def test_rms_norm_of_large_numbers_stays_finite():
    x = torch.full((1, 8), 1e18, dtype=torch.bfloat16)
    assert rms_norm(x, torch.ones(8), 1e-5).tolist() == [[1.0] * 8]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_tokens", [0, 1, 7])
def test_add_rms_norm_is_a_rounded_sum_and_its_norm(dtype, num_tokens):
    x, delta = (normal(num_tokens, 48, seed=seed, dtype=dtype) * 3 for seed in (1, 2))
    weight = normal(48, dtype=dtype)
    total, normed = add_rms_norm(x, delta, weight, 0.3)
    assert torch.equal(total, (x.double() + delta.double()).to(dtype))
    assert torch.equal(normed, rms_norm(total, weight, 0.3))


@pytest.mark.parametrize("dtype, rel", DTYPES)
@pytest.mark.parametrize("num_tokens", [0, 1, 5])
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear(dtype, rel, num_tokens, has_bias):
    x, weight = normal(num_tokens, 24, dtype=dtype), normal(11, 24, seed=1, dtype=dtype)
    bias = normal(11, seed=2, dtype=dtype) if has_bias else None
    expected = torch.zeros(num_tokens, 11, dtype=torch.float64)
    for t in range(num_tokens):
        for n in range(11):
            products = [a * b for a, b in zip(x[t].tolist(), weight[n].tolist(), strict=True)]
            expected[t, n] = math.fsum(products) + (bias[n].item() if has_bias else 0)
    got = linear(x, weight, bias)
    assert got.dtype == dtype
    close(got, expected, rel)


def test_linear_reads_out_the_weight():
    """One-hot rows: the result is the weight, bit for bit."""
    weight = normal(11, 24, dtype=torch.bfloat16)
    assert torch.equal(linear(torch.eye(24, dtype=torch.bfloat16), weight, None), weight.T)
