"""What each phase of the persistent decode kernel took, from when its CTAs got to their ends."""

from collections.abc import Iterator
from itertools import accumulate

from torch import Tensor

from haast.bench.kernel_roles import DecodeShape, kernel_works, told_apart
from haast.bench.rooflines import Work
from haast.bench.timeline import Span
from haast.ops.decode_step.cuda_persistent import PHASES

AFTER = ("x", "head")
"""Phases after the last layer; without stamps of the head it is computed by other kernels"""


def median_stamps(runs: list[Tensor]) -> Tensor:
    """That of several runs of a step which took neither longest nor shortest."""
    return sorted(runs, key=_taken_ns)[(len(runs) - 1) // 2]


def phase_spans(stamps: Tensor, shape: DecodeShape, kernel_us: float) -> list[Span]:
    """The phases of a step, from its kernel's start on.

    stamps     as `DecodeStep` has them written: [CTAs, layers and more, phases] ns, 0 = has none
    kernel_us  that the kernel took; what the stamped run took longer is taken from all phases

    A phase ends when its last CTA does, and begins where the one before ended; the last ends with
    the kernel, so that the first holds the wait for the kernel before. Two of them read nothing: x
    is the wait for the experts' sums, gated that between up and down. Weights are read ahead, so
    that a phase may seem to have read faster than memory can.
    Raises ValueError if no CTA has a phase.
    """
    layers = shape.config.num_layers
    latest = stamps.amax(0).tolist()
    told = list(_phases(layers, has_head=latest[layers][AFTER.index("head")] > 0))
    stamped: list[int] = [latest[layer][phase] for _, layer, phase in told]
    if min(stamped) <= 0:
        raise ValueError("a phase of the step has no stamps")
    ends_ns = list(accumulate(stamped, max))
    stretch = min(1.0, 1e3 * kernel_us / max(1, ends_ns[-1] - ends_ns[0]))
    ends_us = [kernel_us - stretch * (ends_ns[-1] - end) / 1e3 for end in ends_ns]
    works = kernel_works([(name,) for name, *_ in told], shape)
    spans = []
    for (name, layer, _), (_, work), begin, end in zip(
        told, works, [0.0, *ends_us], ends_us, strict=False
    ):
        is_inside = layer < layers
        details = {"layer": layer} if is_inside else {}
        name = told_apart(name, layer if is_inside else None, shape.config)
        spans.append(Span(name, begin, end, work or Work(0, 0), details=details))
    return spans


def _phases(layers: int, has_head: bool) -> Iterator[tuple[str, int, int]]:
    """Name, layer and number of all phases, in order."""
    for layer in range(layers + 1):
        names = PHASES if layer < layers else AFTER[: 1 + has_head]
        yield from ((name, layer, phase) for phase, name in enumerate(names))


def _taken_ns(stamps: Tensor) -> int:
    seen = stamps[stamps > 0]
    return int(seen.max() - seen.min()) if len(seen) else 0
