"""Which machine and which code a figure belongs to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import torch

from haast.bench.checkout import commit, package_version, program_output
from haast.errors import HaastError
from haast.ops import why_no_kernels

QUERY = ("driver_version", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw")


class BenchError(HaastError):
    """Something cannot be measured here."""


@dataclass(frozen=True)
class Card:
    """What nvidia-smi says about the GPU at one moment; None = it does not say."""

    driver: str | None = None
    sm_mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None


def hopper() -> torch.device:
    """The GPU that kernels are measured on. Raises BenchError where there is no Hopper GPU."""
    reason = why_no_hopper()
    if reason is not None:
        raise BenchError(reason)
    return torch.device("cuda", 0)


def why_no_hopper() -> str | None:
    """Why kernels cannot run here, or None if they can."""
    need = "this needs an NVIDIA Hopper GPU, but"
    if torch.version.cuda is None:
        return f"{need} torch {torch.__version__} is a CPU build"
    if not torch.cuda.is_available():
        return f"{need} torch sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"
    return why_no_kernels(torch.device("cuda", 0))


def l2_bytes() -> int:
    """Size of the L2 cache. Raises BenchError where there is no Hopper GPU."""
    return int(torch.cuda.get_device_properties(hopper()).L2_cache_size)


@contextmanager
def one_line() -> Iterator[None]:
    """Refusals of ops and lack of memory, as a BenchError."""
    try:
        yield
    except LookupError as error:
        raise BenchError(str(error.args[0])) from None
    except torch.OutOfMemoryError as error:
        raise BenchError(f"out of GPU memory: {str(error).splitlines()[0]}") from None


def card_now() -> Card:
    """Clocks, temperature and power at this moment."""
    uuid = torch.cuda.get_device_properties(0).uuid
    fields = f"--query-gpu={','.join(QUERY)}"
    command = ("nvidia-smi", fields, "--format=csv,noheader,nounits", "-i", f"GPU-{uuid}")
    return parse_card(program_output(command))


def parse_card(line: str | None) -> Card:
    """One line of nvidia-smi's CSV in the order of QUERY; a field it cannot give is `[N/A]`."""
    cells = [cell.strip() for cell in (line or "").split(",")]
    if len(cells) != len(QUERY):
        return Card()
    driver, *numbers = [None if cell.startswith("[") else cell for cell in cells]
    return Card(driver, *(None if number is None else float(number) for number in numbers))


def document(bench: str, **fields: Any) -> dict[str, Any]:
    """What every JSON result begins with, then `fields`."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "bench": bench,
        "date": date.today().isoformat(),
        "commit": commit(),
        "gpu": properties.name,
        "driver": card_now().driver,
        "torch": torch.__version__,
        "triton": package_version("triton"),
        "l2_bytes": properties.L2_cache_size,
        **fields,
    }
