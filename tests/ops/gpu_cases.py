"""Cases of the mixture's kernels, their fp64 results and how to compare; the GPU tests share it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from unittest import mock

import pytest
import torch
from torch import Tensor

from haast.bench.cases import Draw
from haast.mxfp4 import HopperLayout, Mxfp4Weight, SwizzledWeight
from haast.ops import OPS, Kernel, Routing, moe_down, route, why_no_kernels

from ..mxfp4.exact import as_bits
from ..test_mxfp4_grouped_matmul_ragged import MANY, hopper

__all__ = ["hopper"]
"""The fixture: a Hopper GPU, or a skip with its reason, or a failure if one was promised"""

DEVICE = torch.device("cuda", 0)
LIMIT = 7.0
ONE = 127
"""Scale byte of 2^0"""
OVERALL = {torch.float32: 5e-6, torch.bfloat16: 2e-3}
ROW = {torch.float32: 5e-6, torch.bfloat16: 2**-8}
"""Rounding a result once to bf16 costs 1.7e-3 on average, in a short row up to 2^-8"""
TABLE = [(op, kernel) for op in OPS if op.has_kernels for kernel in op.kernels]
"""Whatever is listed in an op's table is tested"""
ROUNDED_TERMS = 1.6
"""Times as far as the limits: moe_down by wgmma rounds a token's terms before it adds them"""
BY_CHOICE = "rows an expert"
"""In the reason of a kernel that would be right, but slower than another"""


@dataclass(frozen=True)
class Shape:
    """Of one mixture: H and I multiples of 32, no two sizes equal but where a model's are."""

    num_experts: int
    num_active: int
    hidden: int
    intermediate: int


@dataclass(frozen=True)
class Case:
    """Random inputs of one call."""

    shape: Shape
    num_tokens: int
    spread: str = "random"
    """`random`; `hot`: all tokens choose the same A experts; `gaps`: every second one has none"""
    std: float = 1.0
    """of the rows"""
    out_dtype: torch.dtype = torch.bfloat16
    """of grouped_matmul"""


@dataclass(frozen=True)
class Call:
    """Arguments of an op and what it has to give, [rows, columns] fp64."""

    args: tuple
    exact: Callable[[], Tensor]


@lru_cache(maxsize=6)
def weights(device: torch.device, *shape: int, paired: bool) -> tuple[Mxfp4Weight, SwizzledWeight]:
    """Random ones, in both orders."""
    weight = Draw.on(device, seed=sum(shape)).mxfp4(*shape)
    return weight, weight.swizzled(HopperLayout(paired))


def random_routing(draw: Draw, shape: Shape, num_tokens: int, spread: str = "random") -> Routing:
    """By the reference."""
    logits = draw.normal(num_tokens, shape.num_experts).float()
    if spread == "hot":
        logits[:, -shape.num_active :] += 100
    elif spread == "gaps":
        logits[:, 1::2] -= 100
    return route.reference(logits, shape.num_active)


def expert_of_row(routing: Routing) -> Tensor:
    """[R] int64."""
    return routing.expert_ids.flatten()[routing.scatter_idx].long()


def exact_product(rows: Tensor, weight: Mxfp4Weight, expert_offs: Tensor) -> Tensor:
    """[R, N] fp64, expert by expert."""
    out = torch.zeros(len(rows), weight.shape[-2], dtype=torch.float64, device=rows.device)
    offs = expert_offs.tolist()
    for expert, (first, last) in enumerate(zip(offs, offs[1:], strict=False)):
        if first < last:
            matrix = weight[expert].dequantize(torch.float64)
            out[first:last] = rows[first:last].double() @ matrix.T
    return out


def exact_swiglu(z: Tensor, limit: float) -> Tensor:
    gate, up = z[..., ::2].double().clamp(max=limit), z[..., 1::2].double().clamp(-limit, limit)
    return gate / (1 + torch.exp(-1.702 * gate)) * (up + 1)


def rounds_terms(kernel: Kernel) -> bool:
    return kernel is moe_down.kernels[1]


def add_choices(terms: Tensor, routing: Routing, is_rounded: bool = False) -> Tensor:
    """Routed rows [R, H], each times its weight, summed for each token [T, H].

    is_rounded  whether terms become bf16 before
    """
    scatter = routing.scatter_idx.long()
    weighted = terms * routing.expert_weights.flatten()[scatter, None].to(terms.dtype)
    if is_rounded:
        weighted = weighted.bfloat16().to(terms.dtype)
    slots = torch.zeros_like(terms).index_copy_(0, scatter, weighted)
    return slots.view(*routing.expert_ids.shape, terms.shape[1]).sum(1)


def _up(case: Case, draw: Draw) -> Call:
    shape = case.shape
    routing = random_routing(draw, shape, case.num_tokens, case.spread)
    x = draw.normal(case.num_tokens, shape.hidden, std=case.std)
    size = (shape.num_experts, 2 * shape.intermediate, shape.hidden)
    weight, swizzled = weights(draw.device, *size, paired=True)
    bias = draw.normal(*size[:2])

    def exact() -> Tensor:
        z = exact_product(x[routing.gather_idx], weight, routing.expert_offs)
        return exact_swiglu(z + bias.double()[expert_of_row(routing)], LIMIT)

    return Call((x, swizzled, bias, routing, LIMIT), exact)


def _down(case: Case, draw: Draw) -> Call:
    shape = case.shape
    routing = random_routing(draw, shape, case.num_tokens, case.spread)
    h = draw.normal(len(routing.gather_idx), shape.intermediate, std=case.std)
    size = (shape.num_experts, shape.hidden, shape.intermediate)
    weight, swizzled = weights(draw.device, *size, paired=False)
    bias = draw.normal(*size[:2])

    def exact() -> Tensor:
        z = exact_product(h, weight, routing.expert_offs)
        return add_choices(z + bias.double()[expert_of_row(routing)], routing)

    return Call((h, swizzled, bias, routing), exact)


def _grouped(case: Case, draw: Draw) -> Call:
    shape = case.shape
    offs = random_routing(draw, shape, case.num_tokens, case.spread).expert_offs
    x = draw.normal(case.num_tokens * shape.num_active, shape.hidden, std=case.std)
    size = (shape.num_experts, 2 * shape.intermediate, shape.hidden)
    weight, swizzled = weights(draw.device, *size, paired=False)
    return Call((x, swizzled, offs, case.out_dtype), lambda: exact_product(x, weight, offs))


CALLS = {"moe_up": _up, "moe_down": _down, "grouped_matmul": _grouped}
"""Op -> a call of it; `route` has tests of its own"""
MATMULS = [(op, kernel) for op, kernel in TABLE if op.name in CALLS]


def name_of(value: object) -> str:
    """Of a parameter in a test's id."""
    if isinstance(value, Shape):
        return f"E{value.num_experts}-A{value.num_active}-H{value.hidden}-I{value.intermediate}"
    return str(getattr(value, "name", value))


def table(rows: list) -> pytest.MarkDecorator:
    """For each op and each kernel of its table."""
    ids = [f"{op.name}-{kernel.name}" for op, kernel in rows]
    return pytest.mark.parametrize("op, kernel", rows, ids=ids)


def build(op_name: str, case: Case, device: torch.device | None = None) -> Call:
    """The same inputs for every kernel of an op."""
    seed = case.num_tokens + 10_000 * case.shape.num_experts
    return CALLS[op_name](case, Draw.on(device or DEVICE, seed))


def skip_rejected(kernel: Kernel, args: tuple) -> None:
    """Not where it only would be slower than another, and never because no kernel can run."""
    assert why_no_kernels(DEVICE) is None, why_no_kernels(DEVICE)
    reason = kernel.rejects(*args)
    if reason and BY_CHOICE not in reason:
        pytest.skip(f"{kernel.name} {reason}")


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that torch.empty hands out is full of NaN, or of the largest integer."""
    empty = torch.empty

    def fill(*args: object, **options: object) -> Tensor:
        out = empty(*args, **options)
        return out.fill_(torch.nan if out.is_floating_point() else torch.iinfo(out.dtype).max)

    with mock.patch.object(torch, "empty", fill):
        yield


def run_twice(kernel: Kernel, args: tuple) -> Tensor:
    """Into poisoned memory; both results have the same bits."""
    with poisoned():
        first, second = kernel.fn(*args), kernel.fn(*args)
    assert not first.isnan().any(), "memory that was not written, or NaN from numbers"
    assert torch.equal(as_bits(first), as_bits(second)), "the same input twice, other bits"
    return first


def compare(got: Tensor, expected: Tensor, slack: float = 1.0) -> None:
    """Relative error in the Frobenius norm, of the worst row and of the whole.

    slack  times the limits
    """
    assert got.shape == expected.shape, f"{list(got.shape)} is not {list(expected.shape)}"
    if not expected.numel():
        return
    error = got.double() - expected
    rows = error.norm(dim=1) / expected.norm(dim=1)
    worst = int(rows.nan_to_num(nan=torch.inf).argmax())
    column = int(error[worst].abs().nan_to_num(nan=torch.inf).argmax())
    assert rows[worst] <= slack * ROW[got.dtype], (
        f"row {worst} of {len(rows)} is off by {rows[worst]:.3g}, most in column {column}: "
        f"got {got[worst, column]:.9g}, expected {expected[worst, column]:.9g}"
    )
    overall = float(error.norm() / expected.norm())
    assert got.numel() < MANY or overall < slack * OVERALL[got.dtype], (
        f"off by {overall:.3g} overall; worst row {worst} of {len(rows)} by {rows[worst]:.3g}, "
        f"column {column}: got {got[worst, column]:.9g}, expected {expected[worst, column]:.9g}"
    )


def none_wrong(wrong: Tensor) -> None:
    """Elements that differed in each of many launches; read here, once, so that none waits."""
    launches = wrong.nonzero().flatten().tolist()
    counts = [int(wrong[i]) for i in launches[:8]]
    assert not launches, (
        f"{len(launches)} of {len(wrong)} launches were wrong; {launches[:8]} in {counts} elements"
    )
