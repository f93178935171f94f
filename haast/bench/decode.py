"""`haast bench decode`: batches of requests, from their prompts to their last token."""

from collections.abc import Iterator
from statistics import median
from time import perf_counter
from typing import Any

import torch

from haast.bench.machine import BenchError
from haast.bench.rooflines import Ceilings
from haast.bench.whole_model import (
    Subject,
    Tick,
    decode_work,
    random_prompts,
    run,
    submit,
    watching,
)
from haast.model.kv_cache import CACHE_DTYPES

SKIPPED = 4
"""Steps of a full batch that do not count: of a CUDA graph one is run and one captured first"""
HEADING = " batch  tokens/s  step ms  floor ms  % floor  experts   ttft ms  host us  GPU idle %"


def measure(
    subject: Subject,
    batches: tuple[int, ...],
    input_len: int,
    output_len: int,
    ceilings: Ceilings,
) -> Iterator[dict[str, Any]]:
    """One row a batch size; `_row` says what it holds."""
    for index, batch in enumerate(batches):
        _check_room(subject, batch)
        prompts = random_prompts(subject.config, batch, input_len, index)
        shortlisted = _Shortlisted(subject)
        with watching(subject.loaded) as watch:
            submit(subject.loaded.engine, prompts, output_len)
            started = perf_counter()
            full: list[Tick] = []
            first_step = 0
            ttft_s = 0.0
            for tick in run(subject.loaded):
                ttft_s = ttft_s or (tick.ended_s - started if tick.outputs else 0.0)
                if len(tick.outputs) == batch:
                    full.append(tick)
                    if len(full) == SKIPPED:
                        first_step = len(watch.steps)
            torch.cuda.synchronize()
            counted = full[SKIPPED:]
            busy_ms = watch.busy_ms(first_step)
            experts = watch.num_experts()
        wall_s = counted[-1].ended_s - full[SKIPPED - 1].ended_s
        row = _row(subject, batch, input_len + output_len // 2, experts, ceilings)
        row |= _times(row["floor_us"], batch, counted, wall_s, busy_ms) | {"ttft_s": ttft_s}
        yield row | shortlisted.since()


def _check_room(subject: Subject, batch: int) -> None:
    """Raises BenchError if so many requests are never computed together."""
    room = subject.plan.max_batch_size
    if batch > room:
        raise BenchError(
            f"batch {batch} does not fit: beside the weights memory is left for {room} requests; "
            "shorten input and output, or take fewer"
        )


class _Shortlisted:
    """What the shadow head did from now on."""

    def __init__(self, subject: Subject) -> None:
        self._runner, self._shadow = subject.loaded.runner, subject.loaded.model.shadow
        self._before = self._counts()

    def since(self) -> dict[str, float]:
        """Steps that it served, and rows of the head that one computed; nothing without one."""
        steps, rows = (
            now - before for now, before in zip(self._counts(), self._before, strict=True)
        )
        if self._shadow is None:
            return {}
        return {"short_steps": steps, "rows_a_short_step": rows / max(steps, 1)}

    def _counts(self) -> tuple[int, int]:
        rows = 0 if self._shadow is None else int(self._shadow.num_computed)
        return self._runner.num_short_steps, rows


def _row(
    subject: Subject, batch: int, context: int, experts: float | None, ceilings: Ceilings
) -> dict[str, Any]:
    """The step's floor: bytes or FLOP at the ceilings of all devices, halfway through the output.

    experts  distinct ones a layer, measured; without a measurement as many as tokens could want
    """
    config = subject.config
    most = float(min(config.num_experts, batch * config.num_active_experts))
    cache_bytes = CACHE_DTYPES[subject.plan.memory.cache_format].itemsize
    work = decode_work(config, batch, context, experts or most, cache_bytes)
    return {
        "batch": batch,
        "context": context,
        "experts": experts,
        "nbytes": work.nbytes,
        "flop": work.flop,
        "floor_us": work.floor_us(ceilings) / subject.num_devices,
    }


def _times(
    floor_us: float, batch: int, counted: list[Tick], wall_s: float, busy_ms: float
) -> dict[str, Any]:
    step_us = 1e6 * wall_s / len(counted)
    return {
        "tokens_per_s": batch * 1e6 / step_us,
        "step_us": step_us,
        "percent_of_floor": 100 * floor_us / step_us,
        "host_us": median(tick.host_us for tick in counted),
        "gpu_idle_percent": max(0.0, 100 * (1 - busy_ms / 1e3 / wall_s)),
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
    }


def row_line(row: dict[str, Any]) -> str:
    """A row under HEADING."""
    experts = f"{row['experts']:.1f}" if row["experts"] else "-"
    return (
        f"{row['batch']:6d}  {row['tokens_per_s']:8.0f}  {row['step_us'] / 1e3:7.3f}  "
        f"{row['floor_us'] / 1e3:8.3f}  {row['percent_of_floor']:7.1f}  {experts:>7}  "
        f"{row['ttft_s'] * 1e3:8.1f}  {row['host_us']:7.0f}  {row['gpu_idle_percent']:10.1f}"
    )
