"""Runs commands of the set, each in a process of its own: none can spoil the next one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haast.baseline.errors import UnmeasuredError
from haast.baseline.known_good import COHERENCE, Case

TIMEOUT_S = 900.0
KEPT_OF_COHERENCE = ("passed", "checks", "skipped", "warning")
"""The rest are texts, and paths of this machine"""
PACKAGES = Path(__file__).parents[2]
"""Where this very package lies; the command runs the same code"""

Result = dict[str, Any]
Run = Callable[[Case], Result]


def run_case(case: Case) -> Result:
    """The JSON document that a command prints last.

    Raises UnmeasuredError if it fails, hangs or prints none; incoherence is a result.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "haast", *case.command],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=_environment(),
        )
    except subprocess.TimeoutExpired:
        raise UnmeasuredError(f"took longer than {TIMEOUT_S:.0f} s") from None
    result = last_json(done.stdout)
    is_expected = done.returncode == 0 or (case.name == COHERENCE and done.returncode == 1)
    if result is None or not is_expected:
        raise UnmeasuredError(_reason(done))
    if case.name == COHERENCE:
        return {key: result.get(key) for key in KEPT_OF_COHERENCE}
    return result


def _environment() -> dict[str, str]:
    """Ours, with our package first. Bytecode is not kept, as `git bisect` may check two versions of
    a file out in one second, and torch has one thread: several wait for each other, spinning, where
    other programs have the cores, and coherence then takes ten times as long."""
    paths = [str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def last_json(text: str) -> Result | None:
    """The last line that is a JSON object, or the whole text if it is one."""
    lines = text.strip().splitlines()
    for candidate in (lines[-1] if lines else "", text):
        try:
            found = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    said = done.stderr.strip().splitlines()[-1:]
    ended = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
    return f"ended with {ended}: {' '.join(said) or 'without a word, and without a result'}"
