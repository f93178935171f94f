"""What ranks do together: add up, put side by side, pass on."""

from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from haast import ops

Store = Any
"""torch's own, which its types do not tell"""
WAIT_S = 60.0
"""How long a rank waits for another one; all have the same work, so they arrive together"""
LOOPBACK = "127.0.0.1"


class Ranks(Protocol):
    """This process among those that compute one network. All call the same in the same order."""

    rank: int
    size: int
    step_ranks: ops.StepRanks | None
    """for `ops.DecodeStep`, where there are kernels"""

    def add_rms_norm(
        self, x: Tensor, delta: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """`haast.ops.add_rms_norm` of x, which all have, and the sum of what each has of delta.

        The sum is in fp32, in the order of ranks, and rounded once to delta's dtype; NCCL, which
        adds up many rows, rounds between more than two ranks. Everyone gets the same bits. The
        memory of delta may be used for the sum.
        """
        ...

    def gather(self, x: Tensor) -> Tensor:
        """Columns of all ranks [N, V / size] side by side, [N, V]."""
        ...

    def pass_on(self, x: Tensor) -> None:
        """Rank 0's x into everyone's."""
        ...

    def close(self) -> None:
        """Leave the others, who may be gone."""
        ...


class GlooRanks:
    """Ranks on the CPU. Raises RuntimeError if another rank is gone or does not come in time."""

    def __init__(self, store: Store, rank: int, size: int, wait_s: float = WAIT_S) -> None:
        self.rank = rank
        self.size = size
        self.step_ranks: ops.StepRanks | None = None
        gloo: Any = dist.ProcessGroupGloo  # not the default group, which may be somebody else's
        options = gloo._Options()
        options._devices = [gloo.create_device(hostname=LOOPBACK)]
        options._timeout = timedelta(seconds=wait_s)
        self._group = gloo(store, rank, size, options)

    def add_rms_norm(
        self, x: Tensor, delta: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """See Ranks."""
        total = self._all(delta).float().sum(0).to(delta.dtype)
        return ops.add_rms_norm(x, total, weight, eps)

    def gather(self, x: Tensor) -> Tensor:
        """See Ranks."""
        return self._all(x).transpose(0, 1).reshape(len(x), -1)

    def pass_on(self, x: Tensor) -> None:
        """See Ranks."""
        self._group.broadcast(x, 0).wait()

    def close(self) -> None:
        """See Ranks."""

    def _all(self, x: Tensor) -> Tensor:
        """[size, *x.shape], as bytes on the way: gloo need not know their dtype."""
        out = torch.empty(self.size, *x.shape, dtype=x.dtype)
        parts = [part.view(torch.uint8) for part in out]
        self._group.allgather([parts], [x.contiguous().view(torch.uint8)]).wait()
        return out


def meeting_place(size: int) -> tuple[Store, int]:
    """Where ranks find each other, and the port by which `come_to` finds it."""
    made: Any = dist
    timeout = timedelta(seconds=WAIT_S)
    store = made.TCPStore(LOOPBACK, 0, size, True, timeout, wait_for_workers=False)
    return store, store.port


def come_to(port: int, size: int) -> Store:
    """The meeting place of another process."""
    made: Any = dist
    return made.TCPStore(LOOPBACK, port, size, False, timedelta(seconds=WAIT_S))
