"""A launch's counters, those that explain a kernel's speed, each with a verdict.

Names are those of gh100 in Nsight Compute 2023 to 2025; of several in a row the first that a
report has counts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from haast.bench.ncu import Launch
from haast.bench.rooflines import Work

MISSING = "n/a"
NOT_THERE = "not in this report"
COMPUTE_BOUND_FLOP_PER_BYTE = 200
"""Above this a Hopper GPU's tensor cores are the limit: 798 TFLOP/s over 3.1 TB/s is 257"""
MIN_DRAM_PERCENT = 81
"""0.9 of a stream that itself reaches 0.9 of the datasheet's peak"""
MIN_TENSOR_PERCENT = 75
MAX_ALU_PERCENT = 70
MAX_READ_RATIO = 1.02
NUM_STALLS = 3
STALL = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio")
NO_STALLS = ("selected",)

_ACTIVE = ".avg.pct_of_peak_sustained_active"
_ELAPSED = ".avg.pct_of_peak_sustained_elapsed"
TIME = ("gpu__time_duration.sum",)
DRAM_READ = ("dram__bytes_read.sum",)
DRAM = (f"dram__throughput{_ELAPSED}", f"gpu__dram_throughput{_ELAPSED}")
L2_HITS = ("lts__t_sector_hit_rate.pct",)
ISSUE = (f"sm__inst_issued{_ACTIVE}", f"smsp__issue_active{_ACTIVE}")
ALU = (f"sm__inst_executed_pipe_alu{_ACTIVE}",)
FMA = (f"sm__inst_executed_pipe_fma{_ACTIVE}",)
FMA_HEAVY = (f"sm__inst_executed_pipe_fmaheavy{_ACTIVE}",)
LSU = (f"sm__inst_executed_pipe_lsu{_ACTIVE}",)
TENSOR = (
    f"sm__pipe_tensor_op_hmma_cycles_active{_ACTIVE}",
    f"sm__pipe_tensor_cycles_active{_ACTIVE}",
)
BANKS = ("l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",)
LOCAL_LOADS = (
    "smsp__inst_executed_op_local_ld.sum",
    "smsp__sass_inst_executed_op_local_ld.sum",
    "sass__inst_executed_local_loads",
)
LOCAL_STORES = (
    "smsp__inst_executed_op_local_st.sum",
    "smsp__sass_inst_executed_op_local_st.sum",
    "sass__inst_executed_local_stores",
)
REGISTERS = ("launch__registers_per_thread",)
OCCUPANCY = (f"sm__warps_active{_ACTIVE}",)
SHARED = ("launch__shared_mem_per_block", "launch__shared_mem_per_block_dynamic")
GRID = ("launch__grid_size",)


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    label: str
    value: str
    verdict: str = ""


def first(launch: Launch, names: Sequence[str]) -> float | None:
    """The first of these metrics that the report has."""
    return next((launch.metrics[name] for name in names if name in launch.metrics), None)


def describe(launch: Launch, work: Work) -> list[Line]:
    """The counters of one launch; `work` says which unit should be the busy one."""
    is_compute_bound = work.flop > COMPUTE_BOUND_FLOP_PER_BYTE * work.nbytes
    min_dram = None if is_compute_bound else MIN_DRAM_PERCENT
    min_tensor = MIN_TENSOR_PERCENT if is_compute_bound else None
    return [
        _line("time", launch, TIME, "us", 1e-3),
        _line("DRAM read", launch, DRAM_READ, "MB", 1e-6),
        _line("DRAM of peak", launch, DRAM, "%", at_least=min_dram),
        _line("L2 hits", launch, L2_HITS, "%"),
        _line("issue slots busy", launch, ISSUE, "%"),
        _line("ALU pipe", launch, ALU, "%", at_most=MAX_ALU_PERCENT),
        _line("FMA pipe", launch, FMA, "%"),
        _line("heavy FMA pipe", launch, FMA_HEAVY, "%"),
        _line("LSU pipe", launch, LSU, "%"),
        _line("tensor pipe", launch, TENSOR, "%", at_least=min_tensor),
        _stalls(launch),
        _line("shared bank conflicts", launch, BANKS, ""),
        _line("local loads", launch, LOCAL_LOADS, "", at_most=0),
        _line("local stores", launch, LOCAL_STORES, "", at_most=0),
        _line("registers a thread", launch, REGISTERS, ""),
        _line("achieved occupancy", launch, OCCUPANCY, "%"),
        _line("shared memory a block", launch, SHARED, "KB", 1e-3),
        _line("blocks", launch, GRID, ""),
    ]


def traffic(launches: Sequence[Launch], work: Work) -> Line:
    """DRAM bytes that all kernels of a call read, against those that had to move."""
    label = "DRAM read / counted"
    read = [first(launch, DRAM_READ) for launch in launches]
    known = [nbytes for nbytes in read if nbytes is not None]
    if len(known) < len(read) or not known:
        return Line(label, MISSING, NOT_THERE)
    ratio = sum(known) / work.nbytes
    value = f"{sum(known) / 1e6:.2f} / {work.nbytes / 1e6:.2f} MB = {ratio:.3f}"
    return Line(label, value, _verdict(ratio, None, MAX_READ_RATIO))


def _line(
    label: str,
    launch: Launch,
    names: Sequence[str],
    unit: str,
    scale: float = 1.0,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Line:
    value = first(launch, names)
    if value is None:
        return Line(label, MISSING, NOT_THERE)
    text = f"{value * scale:.2f} {unit}" if unit else f"{value:,.0f}"
    return Line(label, text, _verdict(value, at_least, at_most))


def _verdict(value: float, at_least: float | None, at_most: float | None) -> str:
    if at_least is not None and value < at_least:
        return f"LOOK: below {at_least:g}"
    if at_most is not None and value > at_most:
        return f"LOOK: above {at_most:g}"
    return "ok" if (at_least, at_most) != (None, None) else ""


def _stalls(launch: Launch) -> Line:
    """Warps waiting for each reason, on average, whenever one issues."""
    found = {m[1]: value for name, value in launch.metrics.items() if (m := STALL.fullmatch(name))}
    ranked = sorted(found.items(), key=lambda item: -item[1])
    top = [f"{why} {value:.2f}" for why, value in ranked if why not in NO_STALLS][:NUM_STALLS]
    return Line("top stalls", ", ".join(top)) if top else Line("top stalls", MISSING, NOT_THERE)
