"""`haast bench allreduce`: what ranks have of some rows, added up with a residual and normalised.

Every rank runs the same here; those other than 0 as `python -m haast.bench.allreduce FD`.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from haast import ops
from haast.bench.machine import BenchError
from haast.bench.timing import summarise
from haast.engine.device import pick_devices
from haast.parallel.collectives import Ranks, come_to, meeting_place
from haast.parallel.connect import connect
from haast.parallel.followers import Followers
from haast.parallel.gpu import GpuRanks
from haast.parallel.leader import READY, Leader

CALLS = 20
"""In one replay of a graph"""
WARMUP = 3
REPLAYS = 30
EPS = 1e-5
HEADING = "  rows  " + "".join(
    f"{name:>12}" for name in ("join us", "nccl us", "gloo us", "alone us")
)
Join = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


class Task(NamedTuple):
    """What all ranks measure, and what one needs to come together with the others."""

    devices: tuple[torch.device, ...]
    rank: int
    port: int
    hidden_size: int
    num_rows: tuple[int, ...]


def measure(devices: str, hidden_size: int, num_rows: tuple[int, ...]) -> list[dict[str, Any]]:
    """Microseconds of each way that the devices have, a row of the result a number of rows.

    Raises BenchError for one device or a wrong sum, RankError if a rank cannot go on.
    """
    places = pick_devices(devices)
    if len(places) < 2:
        raise BenchError(f"devices '{devices}' are one; name several, as in gpu:0,1")
    followers = Followers("haast.bench.allreduce", [str(place) for place in places])
    store, port = meeting_place(len(places))
    task = Task(places, 0, port, hidden_size, num_rows)
    try:
        followers.tell_each(lambda rank: task._replace(rank=rank))
        rows = _run(task, store)
        followers.wait_for(READY)
    except Exception as error:  # whatever it is, the other ranks wait for this one
        if isinstance(error, BenchError):
            raise
        raise followers.explained(error) from error
    finally:
        followers.close()
    return rows


def row_line(row: dict[str, Any]) -> str:
    """A row under HEADING."""
    times = (row["us"].get(name) for name in ("join", "nccl", "gloo", "alone"))
    shown = (f"{us:12.2f}" if us is not None else f"{'-':>12}" for us in times)
    return f"{row['rows']:6d}  {''.join(shown)}"


@torch.inference_mode()
def _run(task: Task, store: Any) -> list[dict[str, Any]]:
    device, size = task.devices[task.rank], len(task.devices)
    ranks = connect(device, store, task.rank, size, task.hidden_size)
    pins = {} if device.type == "cuda" else {ops.add_rms_norm.name: ops.REFERENCE}
    try:
        with ops.pin(pins):
            return [_row(ranks, device, task, count) for count in task.num_rows]
    finally:
        ranks.close()


def _row(ranks: Ranks, device: torch.device, task: Task, count: int) -> dict[str, Any]:
    x, weight = (_drawn(device, n, task.hidden_size, seed=99) for n in (count, 1))
    delta = _drawn(device, count, task.hidden_size, seed=task.rank)
    parts = ranks.gather(delta).view(count, ranks.size, -1).float()
    total = torch.zeros_like(parts[:, 0])
    for rank in range(ranks.size):
        total += parts[:, rank]
    expected = ops.add_rms_norm(x, total.to(x.dtype), weight[0], EPS)
    found = {}
    for name, join in _ways(ranks, x, delta, weight[0]).items():
        result = join(x, delta.clone(), weight[0], EPS)
        if name != "alone":
            _check(name, result, expected)
        found[name] = _time_us(device, partial(join, x, delta, weight[0], EPS))
    return {"rows": count, "us": found}


def _ways(ranks: Ranks, x: Tensor, delta: Tensor, weight: Tensor) -> dict[str, Join]:
    """To do it; `alone` is what one rank by itself would have to do."""
    ways: dict[str, Join] = {"alone": ops.add_rms_norm}
    if not isinstance(ranks, GpuRanks):
        return ways | {"gloo": ranks.add_rms_norm}
    if ranks.peers.why_not(x, delta, weight) is None:
        ways["join"] = ranks.peers.add_rms_norm
    return ways | {"nccl": ranks.add_rms_norm_by_nccl}


def _check(name: str, result: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """Of NCCL, which rounds in between, no more than that is asked."""
    for own, right in zip(result, expected, strict=True):
        worst = (own.float() - right.float()).abs().max().item()
        if worst > (0.1 if name == "nccl" else 0.0):
            raise BenchError(f"{name} of {len(own)} rows is wrong by {worst:g}")


def _time_us(device: torch.device, call: Callable[[], object]) -> float:
    """Median of a call among many: in a CUDA graph, on the CPU as it comes."""
    if device.type == "cpu":
        times = []
        for _ in range(CALLS):
            started = perf_counter()
            call()
            times.append(1e6 * (perf_counter() - started))
        return summarise(times, 1).median_us
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    call()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        for _ in range(CALLS):
            call()
    times = []
    for _ in range(WARMUP + REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1e3 * begin.elapsed_time(end))
    return summarise(times[WARMUP:], CALLS).median_us


def _drawn(device: torch.device, count: int, hidden_size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, hidden_size, generator=generator).bfloat16().to(device)


def main(fd: int) -> None:
    """A rank other than 0."""
    leader = Leader(fd)
    try:
        task = leader.receive()
        _run(task, come_to(task.port, len(task.devices)))
        leader.say_ready()
        leader.receive()
    except EOFError:
        return
    except Exception as error:  # rank 0 tells it
        leader.say_failed(f"{type(error).__name__}: {error}".splitlines()[0])


if __name__ == "__main__":
    main(int(sys.argv[1]))
    os._exit(0)
