"""Memory of every GPU of a host that all others write: for sums of few rows (cuda/join_ranks.cu),
and for whole decode steps (cuda/decode_step.cu) and their logits."""

from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from haast.cuda.launcher import launch
from haast.ops import MAX_RANKS_VOCAB, StepRanks, inbox_words, why_no_kernels

SIZES = (2, 4, 8)
"""Numbers of ranks that there is a kernel for"""
MOST_SENT = 256
"""Rows that a GPU may send at a time, over all others; NCCL brings more of them sooner"""
MAX_HIDDEN = 4096
_CHUNK = 8
_WARP = 32
_SLOTS, _HALVES, _PIECE_BYTES = 2, 2, 16
_WORD_BYTES = 4
_BF16_BYTES = 2


class PeerMemory:
    """A piece of every GPU's memory that all others write, and how often each row was joined.

    All ranks make it together, and call it alike, in the same order.
    """

    def __init__(self, device: torch.device, rank: int, size: int, hidden_size: int) -> None:
        self.device = device
        self.rank = rank
        self.size = size
        self.hidden_size = hidden_size
        self.max_rows = MOST_SENT // size
        self._why_not = _why_not(device, size, hidden_size)
        if self._why_not is None:
            self._open()

    def why_not(self, x: Tensor, delta: Tensor, weight: Tensor) -> str | None:
        """Why the kernel does not serve a call, or None."""
        if any(tensor.dtype != torch.bfloat16 for tensor in (x, delta, weight)):
            return "takes torch.bfloat16"
        if len(x) > self.max_rows:
            return f"takes up to {self.max_rows} rows, got {len(x)}"
        return self._why_not

    def add_rms_norm(
        self, x: Tensor, delta: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """See `haast.parallel.collectives.Ranks`."""
        total, out = torch.empty_like(x), torch.empty_like(x)
        chunks = self.hidden_size // _CHUNK
        if len(x):
            launch(
                "join_ranks",
                f"join_ranks_{self.size}",
                grid=len(x),
                block=-(-chunks // _WARP) * _WARP,
                shared_bytes=0,
                args=(
                    *(x, delta, weight, total, out, float(eps), chunks),
                    *(self._inboxes, self._epochs, self.rank, self.max_rows),
                ),
            )
        return total, out

    def _open(self) -> None:
        """Its own inbox, and where those of the others are."""
        pieces = _HALVES * MAX_HIDDEN // _CHUNK
        nbytes = _SLOTS * self.size * self.max_rows * pieces * _PIECE_BYTES
        self._inboxes, _ = _open("rows", self.device, self.rank, self.size, nbytes)
        self._epochs = torch.zeros(self.max_rows, dtype=torch.int32, device=self.device)
        torch.cuda.synchronize(self.device)


def open_step_ranks(
    device: torch.device, rank: int, size: int, hidden_size: int
) -> StepRanks | None:
    """What one rank has to know of the others; all open it together. None if there is no kernel."""
    if _why_not(device, size, hidden_size) is not None:
        return None
    nbytes = _WORD_BYTES * inbox_words(size, MAX_HIDDEN)
    inboxes, _ = _open("steps", device, rank, size, nbytes)
    _, logits = _open("logits", device, rank, size, _BF16_BYTES * MAX_RANKS_VOCAB)
    state = torch.zeros(2, dtype=torch.int32, device=device)
    torch.cuda.synchronize(device)
    return StepRanks(rank, size, inboxes, state, logits[0].view(torch.bfloat16))


def _open(
    use: str, device: torch.device, rank: int, size: int, nbytes: int
) -> tuple[Tensor, list[Tensor]]:
    """Everyone's memory for a use: addresses [size] int64, and bytes, by rank; its own are zeros.

    A process opens it once, large enough for every model, and each model of it finds it empty.
    """
    addresses, views, _ = _open_once(use, device, rank, size, nbytes)
    views[rank].zero_()
    return addresses, views


@cache
@torch.inference_mode(False)
def _open_once(
    use: str, device: torch.device, rank: int, size: int, nbytes: int
) -> tuple[Tensor, list[Tensor], Any]:
    """The same, and what holds it."""
    from torch.distributed import _symmetric_memory  # needs a torch for GPUs

    symmetric: Any = _symmetric_memory
    own = symmetric.empty(nbytes, dtype=torch.uint8, device=device)
    memory = symmetric.rendezvous(own, dist.group.WORLD)
    views = [memory.get_buffer(r, (nbytes,), torch.uint8) for r in range(size)]
    assert views[rank].data_ptr() == own.data_ptr(), "not its own address"
    addresses = torch.tensor([v.data_ptr() for v in views], dtype=torch.int64, device=device)
    return addresses, views, (own, memory)


def _why_not(device: torch.device, size: int, hidden_size: int) -> str | None:
    """Why the kernel serves no call at all, or None."""
    if size not in SIZES:
        return f"takes {SIZES} ranks, got {size}"
    if hidden_size % _CHUNK or not 0 < hidden_size <= MAX_HIDDEN:
        return f"takes rows of a multiple of {_CHUNK} up to {MAX_HIDDEN}, got {hidden_size}"
    return why_no_kernels(device)
