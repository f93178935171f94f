"""The only timer: CUDA graph replays over rotated buffers, variants in turns."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from haast.bench.machine import Card, card_now

MIN_REPLAY_US = 1500.0
"""A replay lasts at least this long, so that starting it does not count"""
MAX_LAUNCHES = 4000
L2_FACTOR = 3
"""Buffers rotate over more than this many times the L2 cache"""

Calls = Sequence[Callable[[], object]]
Mark = tuple[torch.cuda.Event, torch.cuda.Event]


@dataclass(frozen=True)
class Timing:
    """Microseconds of one call, over the replays of a graph that holds `calls` of them."""

    median_us: float
    p10_us: float
    p90_us: float
    calls: int
    replays: int


def summarise(replay_us: Sequence[float], calls: int) -> Timing:
    """Times of whole replays -> the Timing of one call; percentiles are interpolated."""
    each = [us / calls for us in replay_us]
    if len(each) == 1:
        return Timing(each[0], each[0], each[0], calls, 1)
    deciles = statistics.quantiles(each, n=10, method="inclusive")
    return Timing(statistics.median(each), deciles[0], deciles[-1], calls, len(each))


def sets_past_l2(nbytes: int, l2_bytes: int) -> int:
    """How many sets of buffers, each read once a turn, make a turn miss the L2 cache."""
    return L2_FACTOR * l2_bytes // max(nbytes, 1) + 1


def rounds_for(turn_us: float, calls: int) -> int:
    """Turns in a graph: enough for MIN_REPLAY_US, at most MAX_LAUNCHES calls, at least one."""
    wanted = math.ceil(MIN_REPLAY_US / max(turn_us, 1e-3))
    return max(1, min(wanted, MAX_LAUNCHES // calls))


def time_together(
    variants: Mapping[str, Calls], warmup: int, replays: int
) -> tuple[dict[str, Timing], Card]:
    """Time several variants in turns, so that clocks and heat are the same for all.

    variants  name -> calls that do the same work on different buffers; a replay makes whole turns
              over them. Each is called twice outside a graph first
    warmup    replays of each that do not count
    returns   name -> Timing, and the card's state while the replays ran
    """
    graphs = {name: _graph(calls) for name, calls in variants.items()}
    for _ in range(warmup):
        for graph, _calls in graphs.values():
            graph.replay()
    marks: dict[str, list[Mark]] = {name: [] for name in graphs}
    for _ in range(replays):
        for name, (graph, _calls) in graphs.items():
            marks[name].append(_timed(graph))
    card = card_now()
    torch.cuda.synchronize()
    timings = {
        name: summarise([_us(mark) for mark in marks[name]], calls)
        for name, (_, calls) in graphs.items()
    }
    return timings, card


def _timed(graph: torch.cuda.CUDAGraph) -> Mark:
    begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    begin.record()
    graph.replay()
    end.record()
    return begin, end


def _us(mark: Mark) -> float:
    begin, end = mark
    return float(begin.elapsed_time(end)) * 1e3


def _graph(calls: Calls) -> tuple[torch.cuda.CUDAGraph, int]:
    """A graph that lasts long enough, and the number of calls in it."""
    for call in [*calls, *calls]:
        call()
    torch.cuda.synchronize()
    once = _capture(calls, 1)
    once.replay()
    mark = _timed(once)
    torch.cuda.synchronize()
    rounds = rounds_for(_us(mark), len(calls))
    return (once if rounds == 1 else _capture(calls, rounds)), rounds * len(calls)


def _capture(calls: Calls, rounds: int) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for call in calls:
                call()
    return graph
