"""The ways to divide GPUs between replicas, and what each of them does under a load."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from haast.capacity.costs import Costs
from haast.capacity.memory import Room, room
from haast.capacity.simulate import Limits, Replica, Request
from haast.config import ConfigError

TENSOR_PARALLEL = (1, 2, 4, 8)
"""GPUs that the shapes of gpt-oss can be divided between"""
PER_REPLICA = 600
"""Requests that each replica gets; half of them, in the middle, count"""

SIMULATED = 16
"""Replicas at most: they do not know of each other, so that more tell nothing new"""


@dataclass(frozen=True)
class Load:
    """Requests that come at random, on average so many a second, all of one size."""

    per_s: float
    input: int
    output: int
    seed: int = 0


@dataclass(frozen=True)
class Latency:
    """Percentiles: to the first token, and a token after it."""

    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_s: float
    tpot_p99_s: float


@dataclass(frozen=True)
class Choice:
    """num_gpus a replica.

    why_not    it does not fit; there is no room then
    most_per_s requests that all replicas end a second if there are always more
    latency    None if they cannot keep up
    """

    num_gpus: int
    num_replicas: int
    room: Room | None = None
    why_not: str = ""
    most_per_s: float = 0.0
    latency: Latency | None = None


def choices(cost: Callable[[int], Costs], kind: str, count: int, load: Load) -> list[Choice]:
    """All divisions of `count` GPUs of a kind.

    cost  of a step by the number of GPUs that share a layer
    """
    found = []
    for num_gpus in TENSOR_PARALLEL:
        if count % num_gpus == 0:
            found.append(_choice(cost(num_gpus), kind, count // num_gpus, load))
    return found


def _choice(costs: Costs, kind: str, num_replicas: int, load: Load) -> Choice:
    num_gpus = costs.num_gpus
    try:
        space = room(costs.model, kind, num_gpus, load.input + load.output)
    except ConfigError as error:
        return Choice(num_gpus, num_replicas, why_not=str(error))
    most = num_replicas * most_per_s(costs, space.limits, load)
    latency = None
    if load.per_s <= most:
        latency = under(load, num_replicas, lambda: Replica(costs, space.limits))
    return Choice(num_gpus, num_replicas, space, "", most, latency)


def most_per_s(costs: Costs, limits: Limits, load: Load) -> float:
    """Requests a second that one replica ends when as many wait as it can run together."""
    together = min(limits.batch, limits.kv_tokens // (load.input + load.output))
    replica = Replica(costs, limits)
    replica.run((Request(0.0, load.input, load.output) for _ in range(8 * together)), 2 * together)
    ends = [request.end_s for request in replica.ended]
    first, last = len(ends) // 4, 3 * len(ends) // 4
    return (last - first) / (ends[last] - ends[first])


def under(load: Load, num_replicas: int, make: Callable[[], Replica]) -> Latency:
    """Each replica gets its share at random, as sessions do."""
    draw = random.Random(load.seed)
    ttft_s: list[float] = []
    tpot_s: list[float] = []
    for _ in range(min(num_replicas, SIMULATED)):
        replica, now_s = make(), 0.0
        requests = []
        for _ in range(PER_REPLICA):
            now_s += draw.expovariate(load.per_s / num_replicas)
            requests.append(Request(now_s, load.input, load.output))
        replica.run(requests)
        counted = requests[PER_REPLICA // 4 : 3 * PER_REPLICA // 4]
        ttft_s += [request.ttft_s for request in counted]
        tpot_s += [request.tpot_s for request in counted]
    return Latency(
        percentile(ttft_s, 50),
        percentile(ttft_s, 99),
        percentile(tpot_s, 50),
        percentile(tpot_s, 99),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]
