"""`haast bench start`: where the time goes from a process's start to its first token."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from haast.config import EngineConfig
from haast.errors import HaastError

FIRST = "first token"
ASKED_S = {"auto": 10.0, "dummy": 4.0}
"""Load format -> seconds to the first token, weights in the page cache"""
MODULE = "haast.bench.start_process"


def measure(wishes: EngineConfig, input_len: int) -> dict[str, Any]:
    """Start a process that loads a model and answers a prompt; what it tells, and the total.

    Raises HaastError with the last line of its standard error if it fails.
    """
    config = asdict(wishes)
    for name in ("model_path", "chat_template"):
        config[name] = config[name] and str(config[name])
    asked = {"began_ns": time.monotonic_ns(), "input": input_len, "wishes": config}
    command = [sys.executable, "-m", MODULE, json.dumps(asked)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        lines = [line for line in run.stderr.splitlines() if line.strip()]
        raise HaastError(f"the process ended early: {lines[-1] if lines else run.returncode}")
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return told | {"input": input_len, "first_token_s": first_token_s(told["phases"])}


def first_token_s(phases: Sequence[tuple[str, float]]) -> float:
    """Seconds to the end of the first token's phase."""
    names = [name for name, _ in phases]
    return sum(seconds for _, seconds in phases[: names.index(FIRST) + 1])


def median_run(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One that ran: of an even number, the faster of the two in the middle."""
    return sorted(runs, key=lambda run: run["first_token_s"])[(len(runs) - 1) // 2]


def table_lines(run: Mapping[str, Any]) -> list[str]:
    """A line a phase, and after the first token the total and what was asked."""
    lines = [f"{'phase':24} {'s':>8} {'in all':>8}"]
    total = 0.0
    for name, seconds in run["phases"]:
        total += seconds
        lines.append(f"{name:24} {seconds:8.3f} {total:8.3f}")
        if name == FIRST:
            asked = ASKED_S[run["load_format"]]
            lines.append(f"process start to first token {total:.2f} s (asked <= {asked:g} s)")
    return lines
