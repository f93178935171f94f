"""rope_kv_write's kernel gives the reference's bits. Runs on a Hopper GPU only."""

import pytest
import torch

from haast.ops import rope_kv_write, rope_tables
from haast.ops.rope_kv_write import reference

from .attention_gpu import CACHES, hopper  # noqa: F401 (a fixture)
from .gpu_cases import DEVICE, poisoned
from .test_rope import CONFIG

pytestmark = pytest.mark.usefixtures("hopper")
NUM_PAGES = 40


def arguments(num_tokens, num_heads, num_kv_heads, cache):
    """Random ones; every fifth token is written nowhere. Caches hold what was there before."""
    generator = torch.Generator(DEVICE).manual_seed(num_tokens)
    columns = (num_heads + 2 * num_kv_heads) * 64
    qkv = torch.randn(num_tokens, columns, generator=generator, device=DEVICE).bfloat16()
    ints = lambda n: torch.randperm(n, generator=generator, device=DEVICE)[:num_tokens].int()
    positions, slots = ints(5000), ints(NUM_PAGES * 128)
    slots[::5] = -1
    cos, sin = (table.to(DEVICE) for table in rope_tables(CONFIG.rope, 64, 5000))
    shape = (2, NUM_PAGES, num_kv_heads, 128, 64)
    caches = torch.randn(shape, generator=generator, device=DEVICE).to(cache)
    return qkv, positions, cos, sin, *caches, slots


def same(one, other):
    """To the bit."""
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8))


@pytest.mark.parametrize("cache", CACHES, ids=str)
@pytest.mark.parametrize("heads", [(64, 8), (24, 3), (5, 2)], ids=str)
@pytest.mark.parametrize("num_tokens", [1, 2, 63, 1000, 4097])
def test_the_same_bits(num_tokens, heads, cache):
    (kernel,) = rope_kv_write.kernels
    ours, theirs = (arguments(num_tokens, *heads, cache) for _ in range(2))
    assert kernel.rejects(*ours) is None
    with poisoned():
        q = kernel.fn(*ours)
    assert torch.equal(q, reference(*theirs))
    assert same(ours[4], theirs[4]) and same(ours[5], theirs[5])
    assert not same(ours[4], arguments(num_tokens, *heads, cache)[4]) or num_tokens == 1


def test_every_number_is_rounded_as_the_reference_does():
    """All of bf16 as values; NaN stays NaN."""
    (kernel,) = rope_kv_write.kernels
    ours, theirs = (list(arguments(128, 8, 8, torch.float8_e4m3fn)) for _ in range(2))
    every = torch.arange(1 << 16, device=DEVICE).to(torch.int16).view(torch.bfloat16)
    for args in (ours, theirs):
        args[0][:, 16 * 64 :] = every.view(128, 512)
        args[6].copy_(torch.arange(128, device=DEVICE))
    kernel.fn(*ours), reference(*theirs)
    got, expected = (args[5][0].float() for args in (ours, theirs))
    assert got.isnan().sum() == every.isnan().sum() == 254
    assert same(got.nan_to_num(nan=1.0), expected.nan_to_num(nan=1.0))
