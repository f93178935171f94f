"""How ranks come together."""

import os

import torch

from haast.parallel.collectives import GlooRanks, Ranks, Store
from haast.parallel.gpu import GpuRanks


def connect(device: torch.device, store: Store, rank: int, size: int, hidden_size: int) -> Ranks:
    """The ranks, once all of them have called this.

    store        of `meeting_place`, or `come_to` it
    hidden_size  of the rows that they add up
    On the CPU they share its cores; on GPUs this one becomes torch's current one.
    """
    if device.type == "cuda":
        return GpuRanks(device, store, rank, size, hidden_size)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // size))
    return GlooRanks(store, rank, size)
