"""A loaded model under its engine, watched: what a step costs the host and the GPU."""

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from haast import ops
from haast.bench.machine import hopper
from haast.bench.rooflines import Work
from haast.config import EngineConfig, ModelConfig, Plan
from haast.engine.engine import Engine, Output
from haast.engine.load import Loaded, prepare
from haast.engine.loading import load
from haast.engine.request import Request, SamplingParams
from haast.engine.runner import TorchRunner
from haast.engine.step import Pending, Step
from haast.mxfp4 import GROUP

BF16 = 2
Event = torch.cuda.Event


@dataclass(frozen=True)
class Subject:
    """What is measured."""

    config: ModelConfig
    plan: Plan
    loaded: Loaded
    load_s: float

    @property
    def num_devices(self) -> int:
        """Those that have a share of it each; ceilings are measured on one."""
        return max(1, len(self.plan.ranks))


def load_subject(wishes: EngineConfig) -> Subject:
    """Raises BenchError where there is no Hopper GPU, other HaastErrors as `prepare` and `load`."""
    hopper()
    started = perf_counter()
    prepared = prepare(wishes)
    loaded = load(prepared, frozenset())
    torch.cuda.synchronize()
    load_s = perf_counter() - started
    gc.collect()
    gc.freeze()  # as the server does: a look at all there is for garbage takes 0.1 s between steps
    return Subject(prepared.config, prepared.plan, loaded, load_s)


def random_prompts(config: ModelConfig, count: int, length: int, seed: int) -> list[list[int]]:
    """Token ids drawn evenly from the vocabulary."""
    draw = random.Random(seed)
    return [[draw.randrange(config.vocab_size) for _ in range(length)] for _ in range(count)]


def submit(engine: Engine, prompts: list[list[int]], num_tokens: int) -> list[Request]:
    """Greedy requests that go on to the end."""
    params = SamplingParams(temperature=0, max_new_tokens=num_tokens, ignore_eos=True)
    return [r for prompt in prompts for r in engine.submit(prompt, params)]


@dataclass(frozen=True)
class Tick:
    """One call of `Engine.step`."""

    ended_s: float
    host_us: float
    """without waiting for the GPU"""
    outputs: list[Output]


def run(loaded: Loaded) -> Iterator[Tick]:
    """Step until no request is left."""
    engine, runner = loaded.engine, loaded.runner
    while engine.has_work:
        started, waited = perf_counter(), runner.waited_s
        outputs = engine.step()
        ended = perf_counter()
        yield Tick(ended, 1e6 * (ended - started - (runner.waited_s - waited)), outputs)


class Watch:
    """Times every step on the GPU, and notes which experts a step of plain decodes wants."""

    def __init__(self, loaded: Loaded) -> None:
        self.steps: list[tuple[int, Event, Event]] = []
        """(tokens, begin, end)"""
        self.expert_offs: list[Tensor] = []
        """of each layer of the decode steps that were not replayed"""
        self._runner = loaded.runner
        self._route = ops.route
        self._is_decoding = False

    def busy_ms(self, first: int) -> float:
        """What the steps from `first` on took on the GPU; the device must be idle."""
        times: list[float] = [begin.elapsed_time(end) for _, begin, end in self.steps[first:]]
        return sum(times)

    def num_experts(self) -> float | None:
        """Distinct experts a layer, on average; None if no decode step ran eagerly."""
        if not self.expert_offs:
            return None
        counts: list[int] = torch.stack(self.expert_offs).diff(dim=1).gt(0).sum(1).tolist()
        return sum(counts) / len(counts)

    def launch(self, step: Step) -> Pending:
        """In place of the runner's."""
        self._is_decoding = step.num_decodes == len(step.requests)
        begin, end = (Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        pending = TorchRunner.launch(self._runner, step)
        end.record()
        self.steps.append((step.num_tokens, begin, end))
        return pending

    def route(self, *args: Any, **kwargs: Any) -> ops.Routing:
        """In place of the op."""
        routing: ops.Routing = self._route(*args, **kwargs)
        if self._is_decoding and not torch.cuda.is_current_stream_capturing():
            self.expert_offs.append(routing.expert_offs)
        return routing


@contextmanager
def watching(loaded: Loaded) -> Iterator[Watch]:
    """A Watch over what the engine runs within the block."""
    watch = Watch(loaded)
    route = ops.route
    loaded.runner.launch = watch.launch  # type: ignore[method-assign]
    ops.route = watch.route  # type: ignore[assignment]
    try:
        yield watch
    finally:
        ops.route = route
        del loaded.runner.launch  # the class's own is found again


def decode_work(
    config: ModelConfig, batch: int, context: int, num_experts: float, cache_bytes: int = BF16
) -> Work:
    """One decode step: weights of what is active, keys and values, FLOP of the dense parts.

    cache_bytes  of a number in the KV cache
    """
    heads = config.num_heads * config.head_dim
    head_size = config.vocab_size * config.hidden_size
    attention = config.hidden_size * (config.qkv_size + heads)
    expert = 3 * config.intermediate_size * config.hidden_size
    expert_bytes = expert * (1 / 2 + 1 / GROUP)
    dense = BF16 * (attention + config.hidden_size * config.num_experts)
    layer = dense + num_experts * expert_bytes
    nbytes = (
        config.num_layers * layer
        + BF16 * head_size
        + batch * cache_bytes * _num_cached(config, context)
    )
    active = config.num_active_experts * expert
    token_flop = 2 * (config.num_layers * (attention + active) + head_size)
    return Work(int(nbytes), batch * token_flop)


def prefill_work(config: ModelConfig, num_tokens: int) -> Work:
    """A prompt read at once: all weights once, one row of logits; masked scores are no FLOP."""
    heads = config.num_heads * config.head_dim
    attention = config.hidden_size * (config.qkv_size + heads)
    expert = 3 * config.intermediate_size * config.hidden_size
    layer_flop = num_tokens * 2 * (attention + config.num_active_experts * expert)
    scores = sum(_num_scores(num_tokens, window) for window in config.windows)
    flop = config.num_layers * layer_flop + 4 * heads * scores
    reached = min(config.num_experts, num_tokens * config.num_active_experts)
    return Work(decode_work(config, 1, 0, reached).nbytes, flop)


def _num_scores(num_tokens: int, window: int | None) -> int:
    """Pairs of query and visible key."""
    seen = min(window or num_tokens, num_tokens)
    return seen * (seen + 1) // 2 + (num_tokens - seen) * seen


def _num_cached(config: ModelConfig, context: int) -> int:
    """Numbers in keys and values that the next token of one request reads."""
    token = 2 * config.num_kv_heads * config.head_dim
    return sum(token * min(window or context, context) for window in config.windows)
