"""The language-model head as it is and with a shadow, and the samples that follow."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from haast.bench.cases import Draw
from haast.bench.machine import hopper, one_line
from haast.bench.small_cases import WEIGHT_STD, settings
from haast.bench.timing import time_together
from haast.config import ModelConfig
from haast.ops import Sampling, linear, sample, shadow_of, shortlist

STATES = 8
"""Sets of hidden states, which list different rows"""
WARMUP = 3
HEADING = (
    f"{'tokens':>6}  {'sampled':>12}  {'head':>8}  {'shadow':>8}  {'head+draw':>9}  "
    f"{'shadow+draw':>11}  {'rows':>9}"
)


@dataclass(frozen=True)
class Sweep:
    """What to measure. Weights and hidden states are normal, so logits are too."""

    config: ModelConfig
    tokens: tuple[int, ...]
    top_k: int
    """of the rows that are not greedy"""
    replays: int


def measure(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """A row for each number of tokens, greedy and by top_k: microseconds, and rows of the weight
    that one call with a shadow computes."""
    device = hopper()
    draw = Draw.on(device)
    with one_line():
        size = (sweep.config.vocab_size, sweep.config.hidden_size)
        weight = draw.normal(*size, std=WEIGHT_STD)
        shadow, shadow_s = timed(partial(shadow_of, weight), device)
        for count in sweep.tokens:
            states = [draw.normal(count, size[1]) for _ in range(STATES)]
            drawn = {
                "greedy": settings(count, device, temperature=0.0),
                f"top_k {sweep.top_k}": settings(count, device, top_k=sweep.top_k),
            }
            for name, sampling in drawn.items():
                before = int(shadow.num_computed)
                for x in states:
                    shortlist(x, weight, shadow, sampling)
                computed = (int(shadow.num_computed) - before) / STATES
                whole: Head = partial(linear, weight=weight, bias=None)
                short: Head = partial(shortlist, weight=weight, shadow=shadow, sampling=sampling)
                us = _us(whole, short, states, sampling, sweep.replays)
                told = {"tokens": count, "sampled": name, "rows": computed, "shadow_s": shadow_s}
                yield {**told, **us, "shadow_bytes": shadow.nbytes}


Head = Callable[[Tensor], Tensor]


def _us(
    whole: Head, short: Head, states: Sequence[Tensor], sampling: Sampling, replays: int
) -> dict[str, float]:
    """Median microseconds of each head alone, and of it with the draw of tokens."""

    def drawn(head: Head, x: Tensor) -> Tensor:
        return sample(head(x), sampling)

    calls = {
        "head_us": [partial(whole, x) for x in states],
        "shadow_us": [partial(short, x) for x in states],
        "head_draw_us": [partial(drawn, whole, x) for x in states],
        "shadow_draw_us": [partial(drawn, short, x) for x in states],
    }
    timings, _ = time_together(calls, WARMUP, replays)
    return {name: timing.median_us for name, timing in timings.items()}


def timed(make: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What is made, and the seconds until the device has made it."""
    _wait(device)
    started = perf_counter()
    made = make()
    _wait(device)
    return made, perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def row_line(row: dict[str, Any]) -> str:
    """Below HEADING."""
    return (
        f"{row['tokens']:6}  {row['sampled']:>12}  {row['head_us']:8.1f}  {row['shadow_us']:8.1f}  "
        f"{row['head_draw_us']:9.1f}  {row['shadow_draw_us']:11.1f}  {row['rows']:9.1f}"
    )
