"""`haast bench prefill`: time to the first token of one prompt, and of many."""

from collections.abc import Iterator
from statistics import median
from time import perf_counter
from typing import Any

import torch

from haast.bench.rooflines import Ceilings
from haast.bench.whole_model import Subject, prefill_work, random_prompts, run, submit, watching

REPEATS = 5
MANY_TOKENS = 65536
"""Prompt tokens of the run with many requests"""
MANY_LENGTH = 1024
HEADING = "  input  requests   ttft ms  tokens/s  floor ms  % floor  TFLOP/s  host ms  GPU idle %"


def measure(
    subject: Subject, lengths: tuple[int, ...], ceilings: Ceilings
) -> Iterator[dict[str, Any]]:
    """One row a length, median of some prompts; then one of many prompts at once."""
    for length in lengths:
        for warm_up in random_prompts(subject.config, 2, length, -1):
            _timed(subject, [warm_up])
        prompts = random_prompts(subject.config, REPEATS, length, length)
        runs = [_timed(subject, [prompt]) for prompt in prompts]
        yield _row(subject, length, 1, runs, ceilings)
    count = MANY_TOKENS // MANY_LENGTH
    prompts = random_prompts(subject.config, count, MANY_LENGTH, 0)
    yield _row(subject, MANY_LENGTH, count, [_timed(subject, prompts)], ceilings)


def _timed(subject: Subject, prompts: list[list[int]]) -> dict[str, float]:
    """Seconds until all have their one token, of the host and of the GPU."""
    with watching(subject.loaded) as watch:
        torch.cuda.synchronize()
        started = perf_counter()
        submit(subject.loaded.engine, prompts, 1)
        host_us = sum(tick.host_us for tick in run(subject.loaded))
        total_s = perf_counter() - started
        torch.cuda.synchronize()
        return {"total_s": total_s, "host_s": host_us / 1e6, "busy_s": watch.busy_ms(0) / 1e3}


def _row(
    subject: Subject, length: int, count: int, runs: list[dict[str, float]], ceilings: Ceilings
) -> dict[str, Any]:
    """Medians; the floor is FLOP or bytes at the ceilings, of all prompts in steps as large as
    the engine takes them."""
    work = prefill_work(subject.config, length)
    total, host, busy = (median(r[key] for r in runs) for key in ("total_s", "host_s", "busy_s"))
    flop_us = count * work.flop / ceilings.matmul_tflop_per_s / 1e6
    floor_us = max(flop_us, work.floor_us(ceilings)) / subject.num_devices
    return {
        "input": length,
        "requests": count,
        "ttft_s": total,
        "tokens_per_s": count * length / total,
        "flop": count * work.flop,
        "tflop_per_s": count * work.flop / total / 1e12,
        "floor_us": floor_us,
        "percent_of_floor": floor_us / total / 1e4,
        "host_s": host,
        "gpu_idle_percent": max(0.0, 100 * (1 - busy / total)),
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
    }


def row_line(row: dict[str, Any]) -> str:
    """A row under HEADING."""
    return (
        f"{row['input']:7d}  {row['requests']:8d}  {row['ttft_s'] * 1e3:8.1f}  "
        f"{row['tokens_per_s']:8.0f}  {row['floor_us'] / 1e3:8.1f}  "
        f"{row['percent_of_floor']:7.1f}  {row['tflop_per_s']:7.0f}  {row['host_s'] * 1e3:7.1f}  "
        f"{row['gpu_idle_percent']:10.1f}"
    )
