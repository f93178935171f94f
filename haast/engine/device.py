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


def pick_devices(wish: str | None) -> tuple[torch.device, ...]:
    """The device of each rank: the one of `pick_device`; of gpu:N,M,... or Nxcpu as many as named.

    Raises ConfigError if the wish is none of these, or a GPU is not there or named twice.
    """
    if wish is None:
        return (pick_device(wish),)
    if (match := re.fullmatch(r"(\d+)xcpu", wish)) is not None and int(match[1]) > 0:
        return (torch.device("cpu"),) * int(match[1])
    if re.fullmatch(r"cpu|gpu(:\d+(,\d+)*)?", wish) is None:
        raise ConfigError(f"devices '{wish}' is not one of cpu, gpu, gpu:N, gpu:N,M,... and Nxcpu")
    first, *others = wish.split(",")
    devices = (pick_device(first), *(pick_device(f"gpu:{number}") for number in others))
    if len(set(devices)) < len(devices):
        raise ConfigError(f"devices '{wish}' names a GPU twice")
    return devices


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
