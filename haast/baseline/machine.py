"""Which machine and which tools, without torch and without touching the GPU."""

import platform
from dataclasses import dataclass

from haast.bench.checkout import package_version, program_output
from haast.bench.processor import cpu_name, num_cores

QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader")
HOPPER = "9.0"


@dataclass(frozen=True)
class Machine:
    """What figures depend on besides the code; None = there is none."""

    cpu: str
    cores: int
    gpu: str | None
    driver: str | None
    torch: str | None
    triton: str | None
    python: str
    nvcc: str | None

    def describe(self) -> str:
        """One line for people: the GPU, or where there is none the CPU."""
        where = self.gpu or f"{self.cpu}, {self.cores} cores"
        driver = f", driver {self.driver}" if self.gpu else ""
        return f"{where}{driver}, torch {self.torch}"


def differences(before: Machine, now: Machine) -> list[str]:
    """`torch was 2.11, is 2.13` for each field that is not the same."""
    pairs = [(name, old, getattr(now, name)) for name, old in vars(before).items()]
    return [f"{name} was {old}, is {new}" for name, old, new in pairs if old != new]


def this_machine(with_gpu: bool) -> Machine:
    """with_gpu  whether the GPU matters; else none is named"""
    name, driver, _ = _first_gpu() if with_gpu else (None, None, None)
    return Machine(
        cpu=cpu_name(),
        cores=num_cores(),
        gpu=name,
        driver=driver,
        torch=package_version("torch"),
        triton=package_version("triton"),
        python=platform.python_version(),
        nvcc=package_version("nvidia-cuda-nvcc"),
    )


def has_hopper() -> bool:
    """Whether the first GPU that nvidia-smi names is one that kernels are made for."""
    return _first_gpu()[2] == HOPPER


def _first_gpu() -> tuple[str | None, str | None, str | None]:
    """Name, driver and compute capability."""
    cells = [cell.strip() for cell in (program_output(QUERY) or "").partition("\n")[0].split(",")]
    return (cells[0], cells[1], cells[2]) if len(cells) == 3 else (None, None, None)
