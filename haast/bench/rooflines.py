"""What this GPU can do at best, measured in the same run as what is compared with it."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from haast.bench.checkout import package_version
from haast.bench.timing import Timing, time_together

STREAM_BYTES = 4 << 30
MATRIX = 8192
BLOCK = 4096
STEPS = 16
WARMUP = 5
REPLAYS = 20


@dataclass(frozen=True)
class Ceilings:
    """Rates of this GPU, from random data."""

    read_tb_per_s: float
    read_by: str
    """`triton` = a kernel that only reads; `copy` = the copy's read and write together"""
    copy_tb_per_s: float
    matmul_tflop_per_s: float
    """bf16, 8192 x 8192 x 8192"""


@dataclass(frozen=True)
class Work:
    """What a computation cannot avoid."""

    nbytes: int
    """each input read once, each output written once"""
    flop: int

    def floor_us(self, ceilings: Ceilings) -> float:
        """Microseconds it takes at least."""
        memory_us = self.nbytes / ceilings.read_tb_per_s / 1e6
        return max(memory_us, self.flop / ceilings.matmul_tflop_per_s / 1e6)

    def __add__(self, other: "Work") -> "Work":
        return Work(self.nbytes + other.nbytes, self.flop + other.flop)


def measure_ceilings() -> Ceilings:
    """Stream 4 GiB and multiply large matrices on the current GPU."""
    source = torch.empty(STREAM_BYTES // 8, dtype=torch.int64, device="cuda").random_()
    target = torch.empty_like(source)
    a, b = (torch.randn(MATRIX, MATRIX, device="cuda").bfloat16() for _ in range(2))
    variants: dict[str, list[Callable[[], object]]] = {
        "copy": [lambda: target.copy_(source)],
        "matmul": [lambda: a @ b],
    }
    if package_version("triton"):
        variants["read"] = [_reader(source.view(torch.int32))]
    timings, _ = time_together(variants, WARMUP, REPLAYS)
    return ceilings_from(timings)


def ceilings_from(timings: dict[str, Timing]) -> Ceilings:
    """Times of `measure_ceilings`' variants -> rates."""
    copy = 2 * STREAM_BYTES / timings["copy"].median_us / 1e6
    read = timings.get("read")
    return Ceilings(
        read_tb_per_s=STREAM_BYTES / read.median_us / 1e6 if read else copy,
        read_by="triton" if read else "copy",
        copy_tb_per_s=copy,
        matmul_tflop_per_s=2 * MATRIX**3 / timings["matmul"].median_us / 1e6,
    )


def _reader(x: Tensor) -> Callable[[], object]:
    """A call that reads every element of x [n] int32, n a multiple of BLOCK * STEPS."""
    kernel = read_kernel()
    sink = torch.empty(1, dtype=torch.int32, device=x.device)
    grid = (x.numel() // (BLOCK * STEPS),)
    return lambda: kernel[grid](x, sink, num_warps=8)


def read_kernel() -> Any:
    """(x int32, sink int32): reads BLOCK * STEPS elements a program; triton is optional."""
    triton, tl = import_module("triton"), import_module("triton.language")
    block, steps = tl.constexpr(BLOCK), tl.constexpr(STEPS)

    def read_all(x, sink):  # type: ignore[no-untyped-def]  # triton reads annotations as types
        lanes = tl.program_id(0) * (block * steps) + tl.arange(0, block)
        total = tl.zeros((block,), tl.int32)
        for step in tl.static_range(steps):
            total += tl.load(x + lanes + step * block)
        # a store that all but never happens keeps the loads alive
        if tl.sum(total) == 123456789:
            tl.store(sink, 1)

    return triton.jit(read_all)
