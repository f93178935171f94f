"""rope_kv_write's kernel gives the reference's bits. Runs on a Hopper GPU only."""

import pytest
import torch

from haast.ops import rope_kv_write, rope_tables
from haast.ops.rope_kv_write import reference

from .attention_gpu import hopper  # noqa: F401 (a fixture)
from .gpu_cases import DEVICE, poisoned
from .test_rope import CONFIG

pytestmark = pytest.mark.usefixtures("hopper")
NUM_PAGES = 40


def arguments(num_tokens, num_heads, num_kv_heads):
    """Random ones; every fifth token is written nowhere. Caches hold what was there before."""
    generator = torch.Generator(DEVICE).manual_seed(num_tokens)
    columns = (num_heads + 2 * num_kv_heads) * 64
    qkv = torch.randn(num_tokens, columns, generator=generator, device=DEVICE).bfloat16()
    ints = lambda n: torch.randperm(n, generator=generator, device=DEVICE)[:num_tokens].int()
    positions, slots = ints(5000), ints(NUM_PAGES * 128)
    slots[::5] = -1
    cos, sin = (table.to(DEVICE) for table in rope_tables(CONFIG.rope, 64, 5000))
    shape = (2, NUM_PAGES, num_kv_heads, 128, 64)
    caches = torch.randn(shape, generator=generator, device=DEVICE).bfloat16()
    return qkv, positions, cos, sin, *caches, slots


@pytest.mark.parametrize("heads", [(64, 8), (24, 3), (5, 2)], ids=str)
@pytest.mark.parametrize("num_tokens", [1, 2, 63, 1000, 4097])
def test_the_same_bits(num_tokens, heads):
    (kernel,) = rope_kv_write.kernels
    ours, theirs = arguments(num_tokens, *heads), arguments(num_tokens, *heads)
    assert kernel.rejects(*ours) is None
    with poisoned():
        q = kernel.fn(*ours)
    assert torch.equal(q, reference(*theirs))
    assert torch.equal(ours[4], theirs[4]) and torch.equal(ours[5], theirs[5])
    assert not torch.equal(ours[4], arguments(num_tokens, *heads)[4]) or num_tokens == 1
