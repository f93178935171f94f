"""Ranks on the GPUs of a host: few rows by peer memory, many by NCCL."""

from datetime import timedelta
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from haast import ops
from haast.config import ConfigError
from haast.parallel.collectives import WAIT_S, Store
from haast.parallel.peer_memory import PeerMemory, open_step_ranks

CLOSE_S = 5.0
"""Time for NCCL to end"""


def check_group_is_free() -> None:
    """Raises ConfigError if somebody else has made the group that `GpuRanks` will make."""
    if dist.is_initialized():
        raise ConfigError(
            "torch's default process group is in use in this process, and a model on several GPUs "
            "needs it; start another process"
        )


class GpuRanks:
    """See `haast.parallel.collectives.Ranks`; everything may be captured by CUDA graphs once it has
    run before. Uses torch's default process group, which peer memory asks for; that and peer memory
    stay for the next model's ranks, which are the same processes."""

    def __init__(
        self, device: torch.device, store: Store, rank: int, size: int, hidden_size: int
    ) -> None:
        self.rank = rank
        self.size = size
        torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group(
                "nccl",
                store=store,
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=WAIT_S),
                device_id=device,
            )
        torch.cuda.synchronize(device)
        dist.barrier()  # nobody writes what another model's steps send any more
        self.peers = PeerMemory(device, rank, size, hidden_size)
        self.step_ranks = open_step_ranks(device, rank, size, hidden_size)
        dist.barrier()

    def add_rms_norm(
        self, x: Tensor, delta: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """See Ranks."""
        if self.peers.why_not(x, delta, weight) is None:
            return self.peers.add_rms_norm(x, delta, weight, eps)
        return self.add_rms_norm_by_nccl(x, delta, weight, eps)

    def add_rms_norm_by_nccl(
        self, x: Tensor, delta: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """However many rows there are."""
        dist.all_reduce(delta)
        return ops.add_rms_norm(x, delta, weight, eps)

    def gather(self, x: Tensor) -> Tensor:
        """See Ranks."""
        parts = torch.empty(self.size, *x.shape, dtype=x.dtype, device=x.device)
        dist.all_gather_into_tensor(parts, x)
        return parts.transpose(0, 1).reshape(len(x), -1)

    def pass_on(self, x: Tensor) -> None:
        """See Ranks."""
        dist.broadcast(x, 0)

    def close(self) -> None:
        """See Ranks. NCCL may never come back from it, and is then left to the process's end."""
        of_torch: Any = dist.distributed_c10d
        ending = Thread(target=of_torch._abort_process_group, daemon=True)
        ending.start()
        ending.join(CLOSE_S)
