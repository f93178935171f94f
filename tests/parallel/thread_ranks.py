"""Ranks as threads of one process, so that a test needs no other."""

from collections.abc import Callable
from threading import Barrier, Thread

import torch
from torch import Tensor

from haast import ops

PATIENCE_S = 30


class ThreadRanks:
    """See `haast.parallel.collectives.Ranks`; all of one group share `slots` and `barrier`."""

    def __init__(self, rank: int, slots: list[Tensor | None], barrier: Barrier) -> None:
        self.rank = rank
        self.size = len(slots)
        self.step_ranks = None
        self._slots = slots
        self._barrier = barrier

    def add_rms_norm(self, x, delta, weight, eps):
        total = torch.stack(self._exchanged(delta)).float().sum(0).to(delta.dtype)
        return ops.add_rms_norm(x, total, weight, eps)

    def gather(self, x: Tensor) -> Tensor:
        return torch.cat(self._exchanged(x), -1)

    def pass_on(self, x: Tensor) -> None:
        x.copy_(self._exchanged(x.clone())[0])

    def _exchanged(self, x: Tensor) -> list[Tensor]:
        self._slots[self.rank] = x
        self._barrier.wait(PATIENCE_S)
        found = [*self._slots]
        self._barrier.wait(PATIENCE_S)
        return found


def thread_ranks(size: int) -> list[ThreadRanks]:
    slots, barrier = [None] * size, Barrier(size)
    return [ThreadRanks(rank, slots, barrier) for rank in range(size)]


def together(size: int, work: Callable[[int], object]) -> list:
    """work(rank) in a thread each; their results, or the first error."""
    results: list = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(rank)
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    if errors:
        raise errors[0]
    return results
