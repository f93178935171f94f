"""`haast bench cpu-decode`: decode steps by plain torch references, on one core of the CPU."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date
from statistics import median
from time import process_time
from typing import Any

import torch

from haast.bench.checkout import commit
from haast.bench.processor import cpu_name, num_cores
from haast.bench.rooflines import Ceilings
from haast.bench.whole_model import Subject, decode_work, random_prompts, submit
from haast.config import EngineConfig
from haast.engine.load import load, prepare

INPUT = 16
"""Tokens of a prompt"""
SKIPPED = 4
"""Steps of a full batch that do not count"""
READ_BYTES = 4 << 20
"""More than a core's own cache; a step's weights come from as far away"""
MATRIX = 384
HEADING = " batch  tokens/CPU s  step ms  floor ms  % floor   GB/s  GFLOP/s"

Clock = Callable[[], float]


def load_subject(wishes: EngineConfig) -> Subject:
    """On the CPU. Raises HaastErrors as `haast.engine.load.prepare` and `load` do."""
    started = process_time()
    prepared = prepare(wishes)
    loaded = load(prepared, frozenset())
    return Subject(prepared.config, prepared.plan, loaded, process_time() - started)


def measure(
    subject: Subject, batches: tuple[int, ...], output_len: int, clock: Clock = process_time
) -> Iterator[dict[str, Any]]:
    """One row a batch size, in CPU seconds of one thread: what else runs here does not count.

    The ceilings are measured between the steps, so that both meet the same caches and clocks.
    clock  CPU seconds of this process
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for index, batch in enumerate(batches):
            prompts = random_prompts(subject.config, batch, INPUT, index)
            submit(subject.loaded.engine, prompts, output_len)
            yield _row(subject, batch, output_len, *_steps(subject, batch, clock))
    finally:
        torch.set_num_threads(threads)


def _steps(subject: Subject, batch: int, clock: Clock) -> tuple[list[float], Ceilings]:
    """Seconds of each step that counts, and the ceilings meanwhile."""
    engine = subject.loaded.engine
    probes = _probes()
    steps: list[float] = []
    probed: dict[str, list[float]] = {name: [] for name in probes}
    while engine.has_work:
        started = clock()
        outputs = engine.step()
        took = clock() - started
        if len(outputs) != batch:
            continue
        steps.append(took)
        for name, probe in probes.items():
            started = clock()
            probe()
            probed[name].append(clock() - started)
    return steps[SKIPPED:], _ceilings({name: median(times) for name, times in probed.items()})


def _probes() -> dict[str, Callable[[], object]]:
    source = torch.randint(1 << 30, (READ_BYTES // 8,))
    target = torch.empty_like(source)
    a, b = (torch.randn(MATRIX, MATRIX).bfloat16() for _ in range(2))
    return {"read": source.max, "copy": lambda: target.copy_(source), "matmul": lambda: a @ b}


def _ceilings(seconds: dict[str, float]) -> Ceilings:
    return Ceilings(
        read_tb_per_s=READ_BYTES / seconds["read"] / 1e12,
        read_by="torch.max",
        copy_tb_per_s=2 * READ_BYTES / seconds["copy"] / 1e12,
        matmul_tflop_per_s=2 * MATRIX**3 / seconds["matmul"] / 1e12,
    )


def _row(
    subject: Subject, batch: int, output_len: int, steps: list[float], ceilings: Ceilings
) -> dict[str, Any]:
    """The floor is that of `haast bench decode`; experts: as many as the tokens could want."""
    config = subject.config
    experts = min(config.num_experts, batch * config.num_active_experts)
    work = decode_work(config, batch, INPUT + output_len // 2, experts)
    step_us, floor_us = 1e6 * median(steps), work.floor_us(ceilings)
    return {
        "batch": batch,
        "experts": experts,
        "nbytes": work.nbytes,
        "flop": work.flop,
        "steps": len(steps),
        "step_us": step_us,
        "tokens_per_s": 1e6 * batch / step_us,
        "floor_us": floor_us,
        "percent_of_floor": 100 * floor_us / step_us,
        "ceilings": asdict(ceilings),
    }


def document(subject: Subject, output_len: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON result."""
    return {
        "bench": "cpu-decode",
        "date": date.today().isoformat(),
        "commit": commit(),
        "cpu": cpu_name(),
        "cores": num_cores(),
        "torch": torch.__version__,
        "model": subject.plan.model_path.name,
        "encoding": subject.plan.encoding,
        "cache_format": subject.plan.memory.cache_format,
        "input": INPUT,
        "output": output_len,
        "rows": rows,
    }


def row_line(row: dict[str, Any]) -> str:
    """A row under HEADING."""
    ceilings = row["ceilings"]
    return (
        f"{row['batch']:6d}  {row['tokens_per_s']:12.1f}  {row['step_us'] / 1e3:7.3f}  "
        f"{row['floor_us'] / 1e3:8.3f}  {row['percent_of_floor']:7.3f}  "
        f"{ceilings['read_tb_per_s'] * 1e3:5.1f}  {ceilings['matmul_tflop_per_s'] * 1e3:7.1f}"
    )
