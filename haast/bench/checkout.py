"""Which code a figure belongs to."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def commit() -> str | None:
    """Short hash of the checkout this package runs from, `+` after it if it was changed."""
    git = ("git", "-C", str(Path(__file__).parent))
    found = program_output((*git, "rev-parse", "--short", "HEAD"))
    if found is None:
        return None
    return found + ("+" if program_output((*git, "status", "--porcelain", "-uno")) else "")


def package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def program_output(command: tuple[str, ...]) -> str | None:
    """What a program prints; None where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
