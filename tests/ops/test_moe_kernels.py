"""The tables have a kernel for every production shape; needs no GPU, tensors are on `meta`."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from haast.bench.cases import BUILDERS, Draw, read_config
from haast.bench.small_cases import SMALL_BUILDERS
from haast.cuda.build import CUBINS
from haast.ops import OPS, grouped_matmul, moe_down, moe_up

from . import test_moe_kernels_exact as exact
from . import test_moe_kernels_fp64 as fp64
from . import test_moe_kernels_streams as streams
from .gpu_cases import CALLS, TABLE, Shape, table
from .gpu_sanitize import every_symbol

TINY = Path(__file__).parents[2] / "haast" / "demo" / "haast-tiny"
MODELS = {
    "gpt-oss-20b": read_config("gpt-oss-20b"),
    "gpt-oss-120b": read_config("gpt-oss-120b"),
    "haast-tiny": read_config(str(TINY)),
    "I = 1440": replace(read_config("gpt-oss-20b"), intermediate_size=1440),
}
TOKENS = (0, 1, 64, 65, 8192)
TO_BE_PINNED = {("attention", "cuda_prefill"), ("linear", "fixed_rows")}
META = Draw.on(torch.device("meta"))
OPS_WITH_KERNELS = [op for op in OPS if op.has_kernels]


def test_every_op_with_kernels_is_tested():
    """Some in test files of their own, the others by their place in CALLS."""
    apart = {"route", "attention", "rope_kv_write", *SMALL_BUILDERS}
    assert {op.name for op in OPS_WITH_KERNELS} == {*apart, *CALLS} == {*BUILDERS}


@pytest.mark.parametrize("num_tokens", TOKENS)
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("op", OPS_WITH_KERNELS, ids=lambda op: op.name)
def test_each_production_shape_has_a_kernel(op, config, num_tokens):
    arguments = BUILDERS[op.name](META, config, num_tokens)
    assert op.choose(*arguments) in [kernel.fn for kernel in op.kernels]


@table(TABLE)
def test_each_kernel_accepts_a_production_shape(op, kernel):
    calls = [BUILDERS[op.name](META, config, t) for config in MODELS.values() for t in TOKENS]
    assert any(kernel.rejects(*arguments) is None for arguments in calls)


@table(TABLE)
def test_each_kernel_is_somewhere_the_first(op, kernel):
    """Otherwise its row could go, unless it is there to be pinned."""
    if (op.name, kernel.name) in TO_BE_PINNED:
        return
    calls = [BUILDERS[op.name](META, config, t) for config in MODELS.values() for t in TOKENS]
    assert any(op.choose(*arguments) is kernel.fn for arguments in calls)


def test_no_tokens_launch_nothing():
    for op, kernel in TABLE:
        arguments = BUILDERS[op.name](META, MODELS["haast-tiny"], 0)
        assert kernel.symbols(*arguments) == (), (op.name, kernel.name)


def test_every_symbol_is_in_a_cubin():
    cubins = [*CUBINS.glob("*.cubin")]
    if not cubins:
        pytest.skip("kernels are not built")
    code = b"".join(path.read_bytes() for path in cubins)
    assert [symbol for symbol in sorted(every_symbol()) if symbol.encode() not in code] == []


def launched(op, shape, num_tokens):
    """By every kernel of the op, whichever comes first."""
    config = replace(
        MODELS["gpt-oss-20b"],
        num_experts=shape.num_experts,
        num_active_experts=shape.num_active,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
    )
    arguments = BUILDERS[op.name](META, config, num_tokens)
    found = {symbol for kernel in op.kernels for symbol in kernel.symbols(*arguments)}
    if op.name == "grouped_matmul":
        found.update(op.kernels[0].symbols(*arguments, torch.float32))
    return found


def wanted(*prefixes):
    found = {symbol for symbol in every_symbol() if symbol.startswith(prefixes)}
    assert found
    return found


@pytest.mark.parametrize("shape", [fp64.TAILS, fp64.LONG, fp64.MANY_EXPERTS], ids=str)
def test_comparisons_with_fp64_run_every_symbol(shape):
    seen = {
        s for op in OPS if op.name in CALLS for t in fp64.TOKENS for s in launched(op, shape, t)
    }
    assert seen >= wanted("moe_", "grouped_")


def test_exact_results_run_every_symbol():
    """So that a boundary between two variants can move."""
    ups = {s for case in exact.UP_CASES for s in launched(moe_up, *case)}
    assert ups >= wanted("moe_up_")
    downs = {s for case in exact.DOWN_CASES for s in launched(moe_down, *case)}
    assert downs >= wanted("moe_down_")
    rows = [(Shape(r.num_experts, 1, r.k, r.n // 2), r.num_rows) for r in exact.GROUPED.values()]
    grouped = {s for case in rows for s in launched(grouped_matmul, *case)}
    assert grouped >= wanted("grouped_")


def test_chains_run_every_symbol_of_the_model():
    shape = Shape(streams.E, streams.A, streams.H, streams.I)
    for op in (moe_up, moe_down):
        seen = {s for t in streams.TOKENS for s in launched(op, shape, t)}
        assert seen >= wanted(f"{op.name}_")
