"""Levels of load one after the other, each warmed up with requests like its own."""

import itertools
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import uvloop

from haast.bench.load.level import Level, run_level
from haast.bench.load.prompts import Requests
from haast.bench.load.rows import row
from haast.bench.load.target import LoadError, Target, unreachable

Progress = Callable[[int, int], None]
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


def measure(
    target: Target, requests: Requests, sweep: Sweep, progress: Progress
) -> Iterator[dict[str, Any]]:
    """One row a level; `row` says what it holds.

    progress  called with requests that have ended and requests in all, those of warm-ups too
    Raises LoadError if the server cannot be reached, or answers no request of a level.
    """
    levels = [
        (index, at_once, is_warmup, count)
        for index, at_once in enumerate(sweep.concurrency)
        for is_warmup, count in (
            (True, sweep.warmup_at(at_once)),
            (False, sweep.requests_at(at_once)),
        )
        if count
    ]
    in_all = sum(count for *_, count in levels)
    ended = itertools.count(1)

    def on_end() -> None:
        progress(next(ended), in_all)

    for index, at_once, is_warmup, count in levels:
        bodies = [requests.body(index, is_warmup, number) for number in range(count)]
        level = _run(run_level(target, requests, at_once, bodies, sweep.timeout_s, on_end), target)
        if not is_warmup:
            yield row(level)


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
