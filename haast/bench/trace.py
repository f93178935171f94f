"""`haast bench decode --trace`: every kernel and copy of one decode step, as CUPTI times them."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from haast.bench.decode import SKIPPED
from haast.bench.graph_experts import GraphExperts
from haast.bench.kernel_roles import (
    DecodeShape,
    kernel_parts,
    kernel_works,
    short_symbol,
    told_apart,
)
from haast.bench.machine import BenchError
from haast.bench.phases import median_stamps, phase_spans
from haast.bench.rooflines import Ceilings
from haast.bench.timeline import (
    Span,
    Step,
    in_order,
    median_step,
    table,
    trace_events,
    with_phases,
)
from haast.bench.whole_model import Subject, random_prompts, run, submit
from haast.model.kv_cache import CACHE_DTYPES
from haast.ops.decode_step.cuda_persistent import SYMBOL

STEPS = 24
"""Steps that are watched, fewer where the output is short"""
UNSTEADY = 3
"""The first of them, before which the host had waited for the device"""
CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
DETAILS = ("grid", "block", "shared memory", "registers per thread", "bytes")
TO_DEVICE, TO_HOST, COPIES = "Memcpy HtoD", "Memcpy DtoH", "Memcpy"
SAMPLES = "sample_"
"""Beginnings of the names of copies and of the kernels that sample"""
COPY, TORCH = "copy", "torch"
STAMPED = 9
"""Runs of the persistent kernel that time its phases; the median one counts"""
Profiled = tuple[list["Raw"], list[Tensor | None], Tensor | None]
"""Events, of each step its expert offsets [layers, E + 1], and stamps of the persistent kernel"""


@dataclass(frozen=True)
class Raw:
    """A kernel or a copy, as the profiler tells it."""

    symbol: str
    start_us: float
    end_us: float
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Traced:
    """The median step of a batch."""

    shape: DecodeShape
    step: Step
    num_steps: int
    """among which it is the median"""

    @property
    def title(self) -> str:
        """What it is of."""
        shape = self.shape
        each = sum(shape.experts) / len(shape.experts)
        return f"decode step, batch {shape.batch}, {shape.context} keys, {each:.1f} experts a layer"

    def row(self, ceilings: Ceilings) -> dict[str, Any]:
        """Its `table`, with what it is of."""
        experts = self.shape.experts
        return {
            "batch": self.shape.batch,
            "context": self.shape.context,
            "experts": sum(experts) / len(experts),
            "steps": self.num_steps,
            **table(self.step, ceilings),
        }


def check_trace(path: Path) -> None:
    """Before anything is measured. Raises BenchError."""
    if path.suffix != ".json":
        raise BenchError(f"{path}: a trace's name must end in .json")
    if not path.absolute().parent.is_dir():
        raise BenchError(f"{path}: there is no folder {path.parent}")


def trace(
    subject: Subject,
    batches: Sequence[int],
    input_len: int,
    output_len: int,
    experts: GraphExperts,
) -> Iterator[Traced]:
    """The median step of each batch, from the middle of its output.

    experts  of graphs that were captured since it was made
    Raises BenchError where the output is too short for so many requests.
    """
    for index, batch in enumerate(batches):
        prompts = random_prompts(subject.config, batch, input_len, index)
        submit(subject.loaded.engine, prompts, output_len)
        count = min(STEPS, output_len - 2 * SKIPPED)
        before = max(SKIPPED, (output_len - count) // 2)
        events, offsets, stamps = _profiled(subject, batch, before, count, experts)
        found = split(events)
        if len(found) != count:
            raise BenchError(f"{count} steps ran, and the profiler saw results of {len(found)}")
        shapes = [
            _shape(subject, batch, input_len + before + number, offs)
            for number, offs in enumerate(offsets)
        ]
        steps = [as_step(*part, shape) for part, shape in zip(found, shapes, strict=True)]
        steady = steps[UNSTEADY:]
        middle = median_step(steady)
        shape = shapes[steps.index(middle)]
        yield Traced(shape, _with_stamps(middle, stamps, shape), len(steady))


def _with_stamps(step: Step, stamps: Tensor | None, shape: DecodeShape) -> Step:
    """With the phases of its persistent kernel, if it has one."""
    own_us = [span.own_us for span in step.spans if span.symbol == SYMBOL]
    if stamps is None or not own_us:
        return step
    return with_phases(step, SYMBOL, phase_spans(stamps, shape, own_us[0]))


def _profiled(
    subject: Subject, batch: int, before: int, count: int, experts: GraphExperts
) -> Profiled:
    """Some steps with all requests after others of that kind, and the requests to their end."""
    ticks = run(subject.loaded)
    full = (tick for tick in ticks if len(tick.outputs) == batch)
    reached = sum(1 for _ in islice(full, before))
    has_guesses = subject.plan.speculative_config is not None
    is_alone = batch == 1 and subject.loaded.runner.has_persistent and not has_guesses
    offsets: list[Tensor | None] = []
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for tick in islice(ticks, count):
            reached += len(tick.outputs) == batch
            offsets.append(None if is_alone else experts.snapshot(batch))
        torch.cuda.synchronize()
    has_stamps = is_alone and subject.num_devices == 1  # all ranks would have to run that step
    stamps = _stamps(subject) if has_stamps and reached == before + count else None
    for _ in ticks:
        pass
    if reached != before + count:
        raise BenchError(f"--output is too short for {count} steps of {batch} requests at a time")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        profiler.export_chrome_trace(str(path))
        return read_events(json.loads(path.read_text())), offsets, stamps


def _stamps(subject: Subject) -> Tensor:
    """Of the last step, on the host."""
    runs = [subject.loaded.runner.stamped_decode() for _ in range(STAMPED)]
    return median_stamps([stamps.cpu() for stamps in runs])


def _shape(subject: Subject, batch: int, context: int, offsets: Tensor | None) -> DecodeShape:
    """Without offsets as many experts as the tokens could want."""
    config = subject.config
    most = min(config.num_experts, batch * config.num_active_experts)
    counts = [most] * config.num_layers
    if offsets is not None:
        counts = offsets.diff(dim=1).gt(0).sum(1).tolist()
    cache_bytes = CACHE_DTYPES[subject.plan.memory.cache_format].itemsize
    return DecodeShape(config, batch, context, tuple(counts), cache_bytes)


def read_events(document: Mapping[str, Any]) -> list[Raw]:
    """What ran on the GPU, in order, from what torch's profiler exports."""
    found = [
        Raw(
            event["name"],
            event["ts"],
            event["ts"] + event["dur"],
            {name: event["args"][name] for name in DETAILS if name in event.get("args", {})},
        )
        for event in document["traceEvents"]
        if event.get("ph") == "X" and event.get("cat") in CATEGORIES
    ]
    return sorted(found, key=lambda raw: (raw.start_us, raw.end_us))


def split(events: Iterable[Raw]) -> list[tuple[float, list[Raw]]]:
    """Steps: each from a copy of its numbers to the device to its sampling and copies after that.

    returns  the latest end before each, and its events. What lies between steps is in none, nor is
             what is copied to the host, beside the next one
    """
    steps: list[tuple[float, list[Raw]]] = []
    latest: float | None = None
    is_open = has_sampled = False
    for event in (one for one in events if not one.symbol.startswith(TO_HOST)):
        if event.symbol.startswith(TO_DEVICE) and (has_sampled or not is_open):
            steps.append((event.start_us if latest is None else latest, []))
            is_open, has_sampled = True, False
        latest = event.end_us if latest is None else max(latest, event.end_us)
        if is_open and (not has_sampled or event.symbol.startswith(COPIES)):
            steps[-1][1].append(event)
            has_sampled = has_sampled or event.symbol.startswith(SAMPLES)
    return steps if has_sampled or not is_open else steps[:-1]


def as_step(begin_us: float, events: Sequence[Raw], shape: DecodeShape) -> Step:
    """Events with the names of their parts of the network and what these cannot avoid."""
    parts = kernel_parts([event.symbol for event in events])
    works = kernel_works(parts, shape)
    spans = []
    for event, some, (layer, work) in zip(events, parts, works, strict=True):
        details = event.details if layer is None else {"layer": layer, **event.details}
        name = told_apart(_name(event.symbol, some), layer, shape.config)
        symbol = short_symbol(event.symbol)
        spans.append(Span(name, event.start_us, event.end_us, work, symbol, details))
    return in_order(begin_us, spans)


def _name(symbol: str, parts: tuple[str, ...]) -> str:
    if parts:
        return "+".join(parts)
    if symbol.startswith(("Memcpy", "Memset")):
        return COPY
    return TORCH if "at::" in symbol else short_symbol(symbol)


def write_trace(path: Path, traced: Sequence[Traced]) -> None:
    """A file that chrome://tracing and Perfetto open; a process a batch size."""
    events = []
    for one in traced:
        events += trace_events(one.step, one.shape.batch, one.title)
    path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}))
