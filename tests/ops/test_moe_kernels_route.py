"""route through every kernel of its table, against the reference. Runs on a Hopper GPU only."""

import pytest
import torch

from haast.ops import route

from .gpu_cases import (
    DEVICE,
    TABLE,
    hopper,  # noqa: F401 (a fixture)
    none_wrong,
    poisoned,
    skip_rejected,
    table,
)

TOKENS = (0, 1, 2, 3, 64, 65, 127, 129, 255, 256, 257, 1000, 8192, 8193)
SIZES = [(e, a) for e in (4, 32, 128, 200, 256) for a in (1, 3, 4, 8) if a <= e]
"""E and A"""
KERNELS = table([row for row in TABLE if row[0] is route])
WEIGHT_ERROR = 4e-6
"""exp of differences of logits up to about 10, in single precision"""


def draw(seed, num_tokens, num_experts, dtype):
    generator = torch.Generator(DEVICE).manual_seed(seed)
    shape = (num_tokens, num_experts)
    return (torch.randn(shape, generator=generator, device=DEVICE) * 2).to(dtype)


def with_ties(logits):
    """Three different ones only, zeros of both signs among them."""
    few = logits.float().sign() * (logits.float().abs() > 1)
    return torch.where(few == 0, torch.zeros_like(few).copysign(logits.float()), few)


def check_fits(routing, num_tokens, num_experts, num_active):
    """Ids in range and distinct for a token; rows sorted by expert and then by token, each once."""
    ids, offs = routing.expert_ids.long(), routing.expert_offs.long()
    scatter, num_rows = routing.scatter_idx.long(), num_tokens * num_active
    assert ids.shape == routing.expert_weights.shape == (num_tokens, num_active)
    assert offs.shape == (num_experts + 1,)
    assert scatter.shape == routing.gather_idx.shape == (num_rows,)
    assert ((ids >= 0) & (ids < num_experts)).all(), "an expert that does not exist"
    assert (ids.sort(dim=1).values.diff(dim=1) > 0).all(), "an expert twice for one token"
    sizes = torch.bincount(ids.flatten(), minlength=num_experts)
    assert offs[0] == 0 and torch.equal(offs.diff(), sizes), "expert_offs"
    assert torch.equal(scatter.sort().values, torch.arange(num_rows, device=DEVICE)), "scatter_idx"
    assert torch.equal(routing.gather_idx.long(), scatter // num_active), "gather_idx"
    places = ids.flatten()[scatter] * max(num_rows, 1) + scatter
    assert (places.diff() > 0).all(), "rows out of order"


def differences(got, expected):
    """How many numbers of a routing are wrong, on the GPU."""
    ints = ("expert_ids", "expert_offs", "gather_idx", "scatter_idx")
    wrong = sum((getattr(got, n) != getattr(expected, n)).sum() for n in ints)
    exact = (got.expert_weights - expected.expert_weights).abs() <= WEIGHT_ERROR
    return wrong + (~exact).sum()


def check(kernel, logits, num_active):
    skip_rejected(kernel, (logits, num_active))
    with poisoned():
        got, again = kernel.fn(logits, num_active), kernel.fn(logits, num_active)
    check_fits(got, *logits.shape, num_active)
    expected = route.reference(logits, num_active)
    for name, found in vars(got).items():
        want = getattr(expected, name)
        assert found.dtype == want.dtype and found.is_contiguous(), name
        assert torch.equal(found, getattr(again, name)), f"{name}: the same input, other bits"
        if name != "expert_weights":
            assert torch.equal(found, want), f"{name}: {(found != want).nonzero()[0].tolist()}"
    ordered = logits.double().gather(1, expected.expert_ids.long())
    error = (got.expert_weights - ordered.softmax(-1)).abs()
    assert not (error > WEIGHT_ERROR).any(), f"weights are off by {error.max():.3g}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_experts, num_active", SIZES)
@pytest.mark.parametrize("num_tokens", TOKENS)
@KERNELS
def test_route(op, kernel, num_tokens, num_experts, num_active, dtype):
    logits = draw(num_tokens, num_tokens, num_experts, dtype)
    check(kernel, logits, num_active)
    check(kernel, with_ties(logits).to(dtype), num_active)


@pytest.mark.parametrize("num_tokens", [1, 64, 65, 1000])
@KERNELS
def test_extreme_logits(op, kernel, num_tokens):
    """All equal, one hot expert, largest and smallest numbers."""
    logits = draw(3, num_tokens, 32, torch.float32)
    hot = logits.clone()
    hot[:, 7] += 100
    for case in (torch.zeros_like(logits), hot, logits.sign() * 3e38, logits * 1e-41):
        check(kernel, case, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_tokens", [1, 2, 64, 65, 1000])
@KERNELS
def test_no_logits_lead_out_of_range(op, kernel, num_tokens, dtype):
    """NaN and infinities: whatever is chosen exists, and other tokens do not notice."""
    clean = draw(4, num_tokens, 200, dtype)
    skip_rejected(kernel, (clean, 4))
    expected = kernel.fn(clean, 4)
    for filler in (torch.nan, torch.inf, -torch.inf):
        for columns in (slice(None), slice(0, 3), slice(197, 200), slice(0, 199)):
            logits = clean.clone()
            logits[::2, columns] = filler
            with poisoned():
                got = kernel.fn(logits, 4)
            check_fits(got, num_tokens, 200, 4)
            assert torch.equal(got.expert_ids[1::2], expected.expert_ids[1::2])
            assert torch.equal(got.expert_weights[1::2], expected.expert_weights[1::2])


@pytest.mark.parametrize("num_tokens, num_experts", [(64, 32), (5, 256), (127, 128), (8192, 32)])
@KERNELS
def test_every_one_of_many_launches(op, kernel, num_tokens, num_experts):
    wrong = torch.zeros(300, dtype=torch.int64, device=DEVICE)
    for launch in range(len(wrong)):
        logits = draw(launch, num_tokens, num_experts, torch.bfloat16)
        skip_rejected(kernel, (logits, 4))
        wrong[launch] = differences(kernel.fn(logits, 4), route.reference(logits, 4))
    none_wrong(wrong)
