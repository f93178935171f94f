"""Levels of load one after the other, each warmed up with requests like its own."""

import itertools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import uvloop

from haast.bench.load.level import Level, run_level
from haast.bench.load.prompts import Requests
from haast.bench.load.rows import row
from haast.bench.load.target import LoadError, Target, unreachable

Progress = Callable[[int, int], None]
"""Requests that have ended, and requests in all, those of the warm-up too"""
Bar = Callable[[str], AbstractContextManager[Progress]]
LEAST_REQUESTS = 8
REQUESTS_A_SLOT = 4


@dataclass(frozen=True)
class Sweep:
    """What is measured.

    num_requests  of each level; None = 4 for each that runs at a time, at least 8
    num_warmup    requests before each level that do not count; None = as many as run at a time
    """

    concurrency: tuple[int, ...]
    num_requests: int | None = None
    num_warmup: int | None = None
    timeout_s: float = 600.0

    def requests_at(self, at_once: int) -> int:
        return self.num_requests or max(LEAST_REQUESTS, REQUESTS_A_SLOT * at_once)

    def warmup_at(self, at_once: int) -> int:
        return at_once if self.num_warmup is None else self.num_warmup


def measure(target: Target, requests: Requests, sweep: Sweep, bar: Bar) -> Iterator[dict[str, Any]]:
    """One row a level; `row` says what it holds.

    bar  what goes on -> a progress bar over a level, which is gone when its row is given
    Raises LoadError if the server cannot be reached, or answers no request of a level.
    """
    for index, at_once in enumerate(sweep.concurrency):
        with bar(f"{at_once} at once") as progress:
            level = _level(target, requests, sweep, index, progress)
        yield row(level)


def _level(
    target: Target, requests: Requests, sweep: Sweep, index: int, progress: Progress
) -> Level:
    """The level number `index`, after its warm-up."""
    at_once = sweep.concurrency[index]
    counts = (sweep.warmup_at(at_once), sweep.requests_at(at_once))
    ended = itertools.count(1)

    def on_end() -> None:
        progress(next(ended), sum(counts))

    for part, count in enumerate(counts):
        bodies = [requests.body(index, part, number) for number in range(count)]
        if bodies:
            work = run_level(target, requests, at_once, bodies, sweep.timeout_s, on_end)
            level = _run(work, target)
    return level


def _run(work: Coroutine[Any, Any, Level], target: Target) -> Level:
    """A level in a loop of its own. Raises LoadError if no request came through."""
    try:
        level = uvloop.run(work)
    except OSError as error:
        raise unreachable(target, error) from None
    errors = [outcome.error for outcome in level.outcomes]
    if None not in errors:
        raise LoadError(f"all {len(errors)} requests failed, one of them with: {errors[0]}")
    return level
