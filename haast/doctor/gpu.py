"""The GPU: driver, capability, kernels, memory."""

import torch

from haast.bench.machine import card_now
from haast.cuda.build import HOW, why_not_built
from haast.cuda.context import KernelError
from haast.cuda.cubin_check import count_loading
from haast.doctor.finding import Finding, bad, note, ok
from haast.engine.device import free_memory
from haast.ops.hopper import CAPABILITY

OLDEST_DRIVER = 580
NO_GPU = "models run on the CPU, slowly: haast generate --devices cpu"


def gpu_findings() -> list[Finding]:
    """From the driver upwards; what builds on something that is missing is left out."""
    reason = why_no_gpu()
    if reason is not None:
        return [bad("GPU", *reason), kernels_built()]
    device = torch.device("cuda", 0)
    found = [driver(card_now().driver), card(device), capability(device)]
    if found[-1].state == "ok":
        found.append(cubins(device))
    return [*found, memory(device)]


def why_no_gpu() -> tuple[str, str] | None:
    """What torch sees instead of a GPU, and what to do."""
    if torch.version.cuda is None:
        how = "install torch for CUDA 13 (pip install torch)"
        return f"torch {torch.__version__} is a CPU build", f"{how}; until then {NO_GPU}"
    if not torch.cuda.is_available():
        how = "see what nvidia-smi says, and CUDA_VISIBLE_DEVICES"
        return f"torch {torch.__version__} sees none", f"{how}; until then {NO_GPU}"
    return None


def driver(version: str | None) -> Finding:
    """version  as nvidia-smi tells it; None = it does not"""
    if version is None:
        remedy = f"it must be {OLDEST_DRIVER} or newer, and is if all kernels load"
        return note("driver", "nvidia-smi does not tell its version", remedy)
    remedy = f"install NVIDIA's driver {OLDEST_DRIVER} or newer: kernels need CUDA 13"
    if int(version.split(".")[0]) < OLDEST_DRIVER:
        return bad("driver", version, remedy)
    return ok("driver", f"{version}, torch {torch.__version__}")


def card(device: torch.device) -> Finding:
    others = torch.cuda.device_count() - 1
    more = f" and {others} more" if others else ""
    return ok("GPU", f"{torch.cuda.get_device_name(device)}{more}")


def capability(device: torch.device) -> Finding:
    """Kernels are for one alone."""
    found = torch.cuda.get_device_capability(device)
    text = "compute capability {}.{}".format(*found)
    if found == CAPABILITY:
        return ok("capability", text)
    wanted = "{}.{}".format(*CAPABILITY)
    return bad("capability", text, f"kernels need {wanted} (H100, H200, GH200); others run slowly")


def kernels_built() -> Finding:
    """Whether the cubins are there, where none can be loaded."""
    why = why_not_built()
    if why is None:
        return ok("kernels", "built; without a GPU they cannot be tried")
    return bad("kernels", why.split("; run:")[0], f"on a machine with g++ run: {HOW}")


def cubins(device: torch.device) -> Finding:
    """Whether every kernel loads, not only those that a first request would want."""
    built = kernels_built()
    if built.state != "ok":
        return built
    try:
        num_cubins, num_kernels = count_loading(device.index)
    except KernelError as error:
        return bad("kernels", str(error), f"build them again: {HOW}")
    return ok("kernels", f"{num_kernels} in {num_cubins} cubins, all load")


def memory(device: torch.device) -> Finding:
    """What others hold is missing for keys and values."""
    total = torch.cuda.get_device_properties(device).total_memory
    free = free_memory(device)
    text = f"{free / 1e9:.1f} GB free of {total / 1e9:.1f} GB"
    if free > 0.9 * total:
        return ok("memory", text)
    return note("memory", text, "nvidia-smi names the processes that hold the rest")
