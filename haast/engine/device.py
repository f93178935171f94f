"""Where the model runs and how much memory is there."""

import re
import resource
from pathlib import Path

import torch

from haast.config import ConfigError


def pick_device(wish: str | None) -> torch.device:
    """cpu, gpu or gpu:N -> a device; None -> the first GPU if there is one, else the CPU.

    Raises ConfigError if the wish is none of these or that GPU is not there.
    """
    count = torch.cuda.device_count()
    if wish is None:
        return torch.device("cuda", 0) if count else torch.device("cpu")
    if wish == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"gpu(?::(\d+))?", wish)
    if match is None:
        raise ConfigError(f"devices '{wish}' is not one of cpu, gpu, gpu:N")
    index = int(match[1] or 0)
    if index >= count:
        raise ConfigError(f"devices '{wish}': {_why_no_gpu(count)}")
    return torch.device("cuda", index)


def _why_no_gpu(count: int) -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a CPU build; install a CUDA build or use cpu"
    if count == 0:
        return "torch sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES, or use cpu"
    return f"torch sees {count} GPU{'s' if count > 1 else ''}, numbered from 0"


def device_name(device: torch.device) -> str:
    """What the plan prints: `cpu`, or the GPU with its number."""
    if device.type == "cpu":
        return "cpu"
    return f"gpu:{device.index} ({torch.cuda.get_device_name(device)})"


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def peak_memory(device: torch.device) -> int:
    """Most bytes this process has held: tensors on a GPU, everything on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
