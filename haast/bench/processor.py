"""Which CPU a figure belongs to. Needs no torch."""

import os
import platform
import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """What Linux calls the CPU; elsewhere its architecture."""
    text = CPUINFO.read_text() if CPUINFO.is_file() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return named[1].strip() if named else platform.machine()


def num_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))
