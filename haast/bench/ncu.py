"""Nsight Compute: which command watches an op's kernels, and what its report says."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from haast.bench.drive import WARMUP
from haast.bench.machine import BenchError
from haast.bench.rooflines import Work

SUFFIX = ".ncu-rep"
NAME_COLUMN = "Kernel Name"
NOTHING = "==WARNING== No kernels were profiled."


@dataclass(frozen=True)
class Launch:
    """One kernel launch of a report."""

    kernel: str
    metrics: dict[str, float]
    """numbers in base units (bytes, nanoseconds), by Nsight Compute's names"""


def find_ncu() -> str:
    """Path of `ncu`. Raises BenchError if it is not there."""
    found = shutil.which("ncu")
    if found is None:
        raise BenchError("ncu (Nsight Compute) is not on PATH; it comes with the CUDA toolkit")
    return found


def report_path(path: Path) -> Path:
    """Where ncu puts a report of that name: it adds its suffix where that is missing."""
    return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)


def watch_command(
    ncu: str, report: Path, symbols: Sequence[str], driven: Sequence[str]
) -> list[str]:
    """Profile the kernels of one call of an op, after those of its warm-up calls.

    symbols  CUDA kernels that a call launches, in order
    driven   arguments of `haast.bench.drive`
    """
    # a dict keeps the order and drops repetitions
    pattern = "|".join(re.escape(symbol) for symbol in dict.fromkeys(symbols))
    return [
        *(ncu, "--set", "full", "--clock-control", "none", "--force-overwrite"),
        *("--export", str(report), "--kernel-name", f"regex:^({pattern})$"),
        *("--launch-skip", str(WARMUP * len(symbols)), "--launch-count", str(len(symbols))),
        *(sys.executable, "-m", "haast.bench.drive", *driven),
    ]


def watch(command: Sequence[str]) -> Work:
    """Run `watch_command`; returns what the driven call cannot avoid.

    Raises BenchError with ncu's own reason, or the program's, if there is no report.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    said = next((line for line in reversed(lines) if line.startswith("{")), None)
    if done.returncode or said is None or NOTHING in lines:
        raise BenchError(f"ncu: {_reason(lines, done.stderr)}")
    return Work(**json.loads(said))


def _reason(lines: Sequence[str], stderr: str) -> str:
    said = [line for line in lines if line.startswith(("==ERROR==", "==WARNING=="))]
    return " ".join(stderr.splitlines()[-1:] + said) or "it failed without a word"


def read_report(ncu: str, report: Path) -> list[Launch]:
    """All metrics of a report file."""
    command = (ncu, "--import", str(report), "--page", "raw", "--csv", "--print-units", "base")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"ncu: {_reason(done.stdout.splitlines(), done.stderr)}")
    return parse_raw(done.stdout)


def parse_raw(text: str) -> list[Launch]:
    """CSV of `--page raw`: a line of names, a line of units, then a line a launch.

    What is no number is left out. Raises BenchError if this is no such CSV.
    """
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(lines))
    if not rows or NAME_COLUMN not in rows[0]:
        raise BenchError("ncu printed no raw page in CSV")
    return [Launch(_base_name(row[NAME_COLUMN]), _numbers(row)) for row in rows[1:]]


def _base_name(kernel: str) -> str:
    """`name` of `void name<4>(int*, float)`."""
    return re.split(r"[<(]", kernel, maxsplit=1)[0].split()[-1]


def _numbers(row: dict[str, str]) -> dict[str, float]:
    found = {}
    for name, cell in row.items():
        try:
            found[name] = float(cell.replace(",", ""))
        except ValueError:
            continue
    return found
