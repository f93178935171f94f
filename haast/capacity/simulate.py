"""One replica under load, step by step. Pure Python; seeded by whoever makes the requests."""

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

SERVER_S = 0.0012
"""What the server adds to the first token (LOG.md)"""


class StepCost(Protocol):
    """What a step takes; see `haast.capacity.costs.Costs.step_s`."""

    def step_s(self, batch: int, context: float, tokens: int, offset: float) -> float: ...


@dataclass(frozen=True)
class Limits:
    """Of one engine.

    batch       requests that run together
    step_tokens that one step computes
    kv_tokens   positions of which keys and values are kept
    """

    batch: int
    step_tokens: int
    kv_tokens: int


@dataclass(order=True)
class Request:
    """Ordered by when it comes."""

    at_s: float
    input: int = field(compare=False)
    output: int = field(compare=False)
    first_s: float = field(default=0.0, compare=False)
    end_s: float = field(default=0.0, compare=False)
    read: int = field(default=0, compare=False)
    """tokens of its prompt that were computed"""

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.at_s

    @property
    def tpot_s(self) -> float:
        """Mean time a token after the first."""
        return (self.end_s - self.first_s) / max(1, self.output - 1)


class Replica:
    """As the engine schedules: all decodes, then prompts in order until the step is full.

    A request is admitted if its whole length has room; what comes during a step waits for the end
    of the next one too, which is launched already.
    """

    def __init__(self, cost: StepCost, limits: Limits) -> None:
        self._cost = cost
        self._limits = limits
        self._now_s = self._seen_s = 0.0
        self._steps = 0
        self._coming: list[Request] = []
        self._waiting: deque[Request] = deque()
        self._reading: deque[Request] = deque()
        self._decoding: list[tuple[int, int, Request]] = []
        """(step that makes the last token, number, request)"""
        self._num_started = 0
        self._context = 0
        self._free = limits.kv_tokens
        self.ended: list[Request] = []

    def run(self, requests: Iterable[Request], concurrency: int | None = None) -> None:
        """Until all have ended.

        concurrency  only so many at a time, each next one when another has ended
        """
        later = deque(sorted(requests))
        for _ in range(len(later) if concurrency is None else concurrency):
            if later:
                heapq.heappush(self._coming, later.popleft())
        while self._coming or self._waiting or self._reading or self._decoding:
            for _ in range(self._step()):
                if later:
                    request = later.popleft()
                    request.at_s = self._now_s
                    heapq.heappush(self._coming, request)

    def _step(self) -> int:
        """How many ended."""
        if not (self._waiting or self._reading or self._decoding):
            self._now_s = self._seen_s = max(self._now_s, self._coming[0].at_s + SERVER_S)
        while self._coming and self._coming[0].at_s + SERVER_S <= self._seen_s:
            self._waiting.append(heapq.heappop(self._coming))
        self._admit()
        tokens, offset, complete = self._chunks()
        batch = len(self._decoding)
        mean = self._context / batch if batch else 0.0
        took_s = self._cost.step_s(batch, mean, tokens, offset)
        self._seen_s, self._now_s = self._now_s, self._now_s + took_s
        self._steps += 1
        self._context += batch
        before = len(self.ended)
        while self._decoding and self._decoding[0][0] == self._steps:
            request = heapq.heappop(self._decoding)[2]
            self._context -= request.input + request.output
            self._end(request)
        for request in complete:
            self._begin(request)
        return len(self.ended) - before

    def _admit(self) -> None:
        while self._waiting and self._num_running < self._limits.batch:
            size = self._waiting[0].input + self._waiting[0].output
            if size > self._free:
                return
            self._free -= size
            self._reading.append(self._waiting.popleft())

    @property
    def _num_running(self) -> int:
        return len(self._reading) + len(self._decoding)

    def _chunks(self) -> tuple[int, float, list[Request]]:
        """Tokens of prompts, keys before them on average, and prompts read to the end."""
        left = self._limits.step_tokens - len(self._decoding)
        tokens, seen = 0, 0.0
        complete = []
        while self._reading and left:
            request = self._reading[0]
            count = min(left, request.input - request.read)
            seen += count * (request.read + count / 2)
            request.read += count
            tokens += count
            left -= count
            if request.read == request.input:
                complete.append(self._reading.popleft())
        return tokens, seen / tokens if tokens else 0.0, complete

    def _begin(self, request: Request) -> None:
        request.first_s = self._now_s
        self._num_started += 1
        if request.output == 1:
            self._end(request)
            return
        last = self._steps + request.output - 1
        heapq.heappush(self._decoding, (last, self._num_started, request))
        self._context += request.input + 1

    def _end(self, request: Request) -> None:
        request.end_s = self._now_s
        self._free += request.input + request.output
        self.ended.append(request)
