"""`haast bench cpu-decode`: decode steps by plain torch references, on one core of the CPU."""

from collections.abc import Callable, Iterator
from datetime import date
from statistics import median
from time import process_time
from typing import Any

import torch

from haast.bench.checkout import commit
from haast.bench.processor import cpu_name, num_cores
from haast.bench.whole_model import Subject, decode_work, random_prompts, submit
from haast.config import EngineConfig
from haast.engine.load import prepare
from haast.engine.loading import load

INPUT = 16
"""Tokens of a prompt"""
SKIPPED = 4
"""Steps of a full batch that do not count"""
MATRIX = 384
HEADING = " batch  tokens/CPU s  step ms  floor ms  % floor  GFLOP/s"

Clock = Callable[[], float]


def load_subject(wishes: EngineConfig) -> Subject:
    """On the CPU. Raises HaastErrors as `prepare` and `load` do."""
    started = process_time()
    prepared = prepare(wishes)
    loaded = load(prepared, frozenset())
    return Subject(prepared.config, prepared.plan, loaded, process_time() - started)


def measure(
    subject: Subject, batches: tuple[int, ...], output_len: int, clock: Clock = process_time
) -> Iterator[dict[str, Any]]:
    """One row a batch size, in CPU seconds of one thread: what else runs here does not count.

    The ceiling is what torch multiplies bf16 matrices at, between the steps: so it meets the same
    caches and clocks, and moves with them. With other programs on both cores a step took 23 ms of
    CPU time, without them 18: 27 % more; of the time of such a product it was 6 % less. Of reading
    memory it would have been 20 % more; nor are bytes a bound, as so small a model's weights lie
    in the last cache.
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


def _steps(subject: Subject, batch: int, clock: Clock) -> tuple[list[float], float]:
    """Seconds of each step that counts, and FLOP a second meanwhile."""
    engine = subject.loaded.engine
    a, b = (torch.randn(MATRIX, MATRIX).bfloat16() for _ in range(2))
    steps: list[float] = []
    products: list[float] = []
    while engine.has_work:
        started = clock()
        outputs = engine.step()
        ended = clock()
        if len(outputs) == batch:
            steps.append(ended - started)
            started = clock()
            a @ b
            products.append(clock() - started)
    return steps[SKIPPED:], 2 * MATRIX**3 / median(products[SKIPPED:])


def _row(
    subject: Subject, batch: int, output_len: int, steps: list[float], flop_per_s: float
) -> dict[str, Any]:
    config = subject.config
    work = decode_work(config, batch, INPUT + output_len // 2, config.num_active_experts)
    step_us, floor_us = 1e6 * median(steps), 1e6 * work.flop / flop_per_s
    return {
        "batch": batch,
        "flop": work.flop,
        "steps": len(steps),
        "step_us": step_us,
        "tokens_per_s": 1e6 * batch / step_us,
        "floor_us": floor_us,
        "percent_of_floor": 100 * floor_us / step_us,
        "ceilings": {"matmul_tflop_per_s": flop_per_s / 1e12},
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
    return (
        f"{row['batch']:6d}  {row['tokens_per_s']:12.1f}  {row['step_us'] / 1e3:7.3f}  "
        f"{row['floor_us'] / 1e3:8.3f}  {row['percent_of_floor']:7.3f}  "
        f"{row['ceilings']['matmul_tflop_per_s'] * 1e3:7.1f}"
    )
