"""Ops as the CPU plan runs them: through their table, with the reference named."""

import functools

import torch

from haast.ops import REFERENCE, Op, pin


def reference(op: Op):
    """Call an op with its reference pinned."""

    @functools.wraps(op.reference)
    def call(*args, **kwargs):
        with pin({op.name: REFERENCE}):
            return op(*args, **kwargs)

    return call


def normal(*shape, seed=0, dtype=torch.float32):
    """Random numbers that depend on the seed and the shape alone."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype)


def close(got: torch.Tensor, expected: torch.Tensor, rel: float = 2e-6) -> None:
    """Each row within `rel` of the expected row's largest element; names the worst row."""
    assert got.shape == expected.shape, (got.shape, expected.shape)
    if not expected.numel():
        return
    got, expected = got.double().flatten(0, -2), expected.double().flatten(0, -2)
    error = (got - expected).abs().amax(-1) / expected.abs().amax(-1).clamp(min=1e-30)
    worst = error.nan_to_num(nan=torch.inf).argmax().item()
    assert error[worst] <= rel, f"row {worst}: {got[worst]} is not {expected[worst]}"
