"""`haast bench throughput`: a mix of requests, all there at once."""

import math
import random
from time import perf_counter
from typing import Any

import torch

from haast.bench.whole_model import Subject, random_prompts, run, watching
from haast.engine.request import SamplingParams

MEDIAN_INPUT, MEDIAN_OUTPUT = 160, 200
SIGMA = 1.0
"""Of the logarithm of both lengths, roughly those of conversations that people shared (ShareGPT)"""


LONGEST = 4096
"""Prompt and output together"""


def lengths(count: int, seed: int) -> list[tuple[int, int]]:
    """(prompt, output) tokens of each request, log-normal."""
    draw = random.Random(seed)

    def one(middle: int) -> int:
        return min(LONGEST // 2, max(4, round(draw.lognormvariate(math.log(middle), SIGMA))))

    return [(one(MEDIAN_INPUT), one(MEDIAN_OUTPUT)) for _ in range(count)]


def measure(subject: Subject, sizes: list[tuple[int, int]]) -> dict[str, Any]:
    """All requests at once: totals, speeds, and that none was lost."""
    engine, loaded = subject.loaded.engine, subject.loaded
    prompts = [random_prompts(subject.config, 1, size, i)[0] for i, (size, _) in enumerate(sizes)]
    with watching(loaded) as watch:
        started = perf_counter()
        for prompt, (_, num_output) in zip(prompts, sizes, strict=True):
            params = SamplingParams(temperature=0, max_new_tokens=num_output, ignore_eos=True)
            engine.submit(prompt, params)
        ends: dict[str, int] = {}
        generated = 0
        host_us = 0.0
        for tick in run(loaded):
            host_us += tick.host_us
            for output in tick.outputs:
                generated += output.token_id is not None
                if output.finish_reason is not None:
                    ends[output.finish_reason] = ends.get(output.finish_reason, 0) + 1
        total_s = perf_counter() - started
        torch.cuda.synchronize()
        busy_s = watch.busy_ms(0) / 1e3
        num_steps = len(watch.steps)
    return {
        "requests": len(sizes),
        "prompt_tokens": sum(size[0] for size in sizes),
        "output_tokens": generated,
        "expected_output_tokens": sum(size[1] for size in sizes),
        "finish_reasons": ends,
        "preemptions": engine.scheduler.num_preemptions,
        "total_s": total_s,
        "output_tokens_per_s": generated / total_s,
        "tokens_per_s": (generated + sum(size[0] for size in sizes)) / total_s,
        "steps": num_steps,
        "host_us_per_step": host_us / num_steps,
        "gpu_idle_percent": max(0.0, 100 * (1 - busy_s / total_s)),
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
    }
