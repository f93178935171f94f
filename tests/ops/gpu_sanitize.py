"""Every kernel at tiny shapes of the same form as gpt-oss, for the sanitizers; takes seconds.

compute-sanitizer --tool memcheck  python3 -m tests.ops.gpu_sanitize
compute-sanitizer --tool racecheck python3 -m tests.ops.gpu_sanitize
compute-sanitizer --tool synccheck python3 -m tests.ops.gpu_sanitize

Inputs and expected results are made on the CPU, so that the GPU runs little else than our kernels.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import product
from typing import Any

import torch

from haast.bench.cases import BUILDERS, Draw, read_config
from haast.bench.machine import why_no_hopper
from haast.ops import Op, Routing, StepMeta, attention, rope_kv_write, route

from .attention_gpu import CACHES
from .gpu_cases import (
    MATMULS,
    ROUNDED_TERMS,
    TABLE,
    Case,
    Shape,
    build,
    compare,
    rounds_terms,
)
from .gpu_small_cases import run_small
from .paged import attend, make_case
from .shortlist_cases import run_shortlist

SMALL = Shape(num_experts=4, num_active=3, hidden=96, intermediate=160)
LONG = Shape(num_experts=3, num_active=2, hidden=32, intermediate=1568)
"""moe_down halves K"""
TOKENS = (0, 1, 7, 30, 70, 130)
"""8 and 16 rows a unit, then a tile of each size"""
ROUTES = ((1, 4, 3), (63, 128, 4), (65, 32, 4), (130, 256, 8))
"""T, E, A: one block of tokens and several"""
CPU = torch.device("cpu")
STEPS = ((1, 0), (1, 300), (1, 127), (5, 126), (30, 0))
"""Requests of attention: new and cached tokens"""
DTYPES = (torch.bfloat16, torch.float32)
FP8 = ("attention_decode_mma", "attention_prefill_wgmma", "rope_kv_write")
"""Those that have a twin for a cache in e4m3"""


def every_symbol() -> set[str]:
    """CUDA kernels that the tables name, for any number of tokens and any dtype."""
    config, draw = read_config("gpt-oss-20b"), Draw.on(torch.device("meta"))
    found: set[str] = set()
    for op, kernel in TABLE:
        for num_tokens in (1, 64, 65, 512, 8192):
            arguments = BUILDERS[op.name](draw, config, num_tokens)
            found.update(kernel.symbols(*arguments))
            if op.name == "route":
                found.update(kernel.symbols(arguments[0].float(), arguments[1]))
            if op.name == "grouped_matmul":
                found.update(kernel.symbols(*arguments, torch.float32))
            if op.name in ("sample", "adjust_logits"):
                found.update(kernel.symbols(arguments[0].float(), *arguments[1:]))
    twins = {f"{name}_fp8" for name in FP8}
    return found | twins | {"bias_logits_bf16", "bias_logits_fp32"}


def cases(op: Op) -> Iterator[Case]:
    """Of an op that multiplies."""
    for num_tokens in TOKENS:
        for dtype in DTYPES if op.name == "grouped_matmul" else DTYPES[:1]:
            yield Case(SMALL, num_tokens, "gaps" if num_tokens % 2 else "random", out_dtype=dtype)
    yield Case(LONG, 2)
    yield Case(LONG, 9, "hot")


def moved(value: Any, device: torch.device) -> Any:
    """Tensors, also those within a Routing, a StepMeta or a weight, to a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Routing | StepMeta) or hasattr(value, "storage"):
        inside = {f.name: moved(getattr(value, f.name), device) for f in fields(value)}
        return replace(value, **inside)
    return value


def run_matmuls(device: torch.device) -> set[str]:
    """Symbols launched; results are compared."""
    seen: set[str] = set()
    for op, kernel in MATMULS:
        for case in cases(op):
            call = build(op.name, case, CPU)
            arguments = tuple(moved(value, device) for value in call.args)
            slack = ROUNDED_TERMS if rounds_terms(kernel) else 1.0
            compare(kernel.fn(*arguments).cpu(), call.exact(), slack)
            seen.update(kernel.symbols(*arguments))
    return seen


def run_routes(device: torch.device) -> set[str]:
    """Symbols launched; results are compared."""
    seen: set[str] = set()
    for num_tokens, num_experts, num_active in ROUTES:
        for dtype in DTYPES:
            generator = torch.Generator().manual_seed(num_tokens)
            logits = torch.randn(num_tokens, num_experts, generator=generator).to(dtype)
            expected = route.reference(logits, num_active)
            for kernel in route.kernels:
                if kernel.rejects(logits.to("meta"), num_active):
                    continue
                got = kernel.fn(logits.to(device), num_active)
                for name in ("expert_ids", "expert_offs", "gather_idx", "scatter_idx"):
                    same = torch.equal(getattr(got, name).cpu(), getattr(expected, name))
                    assert same, f"route {num_tokens, num_experts, num_active}: {name}"
                seen.update(kernel.symbols(logits, num_active))
    return seen


def run_attention(device: torch.device) -> set[str]:
    """Symbols launched; results are compared."""
    seen: set[str] = set()
    for window, cache in product((None, 128), CACHES):
        case = make_case(STEPS, 128, (16, 2), 64, torch.bfloat16, window, cache)
        case = replace(case, sinks=case.sinks.bfloat16())
        expected = attend(case, window).flatten(1)
        meta = moved(case.meta, device)
        arguments = (*(moved(value, device) for value in case.args[:4]), meta, window)
        for kernel in attention.kernels:
            error = kernel.fn(*arguments).cpu().double().flatten(1) - expected
            assert (error.norm(dim=1) < 3e-3 * expected.norm(dim=1)).all(), kernel.name
            seen.update(kernel.symbols(*arguments))
    return seen


def run_rope_kv_write(device: torch.device) -> set[str]:
    """Symbols launched; results are compared."""
    (kernel,) = rope_kv_write.kernels
    config = replace(read_config("gpt-oss-20b"), num_heads=16, num_kv_heads=2)
    seen: set[str] = set()
    for cache in CACHES:
        arguments = BUILDERS["rope_kv_write"](Draw.on(CPU), config, 5)
        theirs = [*arguments[:4], *(x.to(cache, copy=True) for x in arguments[4:6]), arguments[6]]
        ours = [moved(value.clone(), device) for value in theirs]
        assert torch.equal(kernel.fn(*ours).cpu(), rope_kv_write.reference(*theirs))
        for i in (4, 5):
            assert torch.equal(ours[i].cpu().view(torch.uint8), theirs[i].view(torch.uint8))
        seen.update(kernel.symbols(*ours))
    return seen


def main() -> None:
    reason = why_no_hopper()
    if reason is not None:
        raise SystemExit(reason)
    device = torch.device("cuda", 0)
    seen = run_routes(device) | run_matmuls(device) | {*run_small(device)}
    seen |= run_attention(device) | run_rope_kv_write(device) | {*run_shortlist(device)}
    torch.cuda.synchronize()
    print("\n".join(sorted(seen)))
    missing = every_symbol() - seen
    if missing:
        raise SystemExit(f"not run: {', '.join(sorted(missing))}")


if __name__ == "__main__":
    main()
