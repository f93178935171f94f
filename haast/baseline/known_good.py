"""The known-good set: the commands whose results make a baseline."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gpu", "cpu"]
COHERENCE, KERNELS = "coherence", "kernels"
"""Cases that are run once, and have no speed"""


@dataclass(frozen=True)
class Case:
    """One command, without `haast` before it."""

    name: str
    command: tuple[str, ...]

    @property
    def is_timed(self) -> bool:
        return self.name not in (COHERENCE, KERNELS)


def _case(name: str, command: str) -> Case:
    return Case(name, tuple(command.split()))


_DUMMY = "--model-path gpt-oss-20b --load-format dummy"
KNOWN_GOOD: dict[Kind, tuple[Case, ...]] = {
    "gpu": (
        _case(COHERENCE, "coherence --json --devices gpu"),
        _case(
            "grouped",
            "bench grouped --P 4096 --K 2880 --N 256 --which gate_up --warmup 20 --iters 100",
        ),
        _case("moe", "bench moe --model gpt-oss-20b --tokens 1,64,1024 --iters 20"),
        _case("decode", f"bench decode {_DUMMY} --batch 1,64 --input 1024 --output 128"),
        _case("prefill", f"bench prefill {_DUMMY} --input 1024"),
        _case(KERNELS, "ops --model gpt-oss-20b --tokens 1,64,1024 --json"),
    ),
    "cpu": (
        _case(COHERENCE, "coherence --json --devices cpu"),
        _case("decode", "bench cpu-decode --batch 1,4 --output 48"),
    ),
}
TOLERANCE: dict[Kind, float] = {"gpu": 0.03, "cpu": 0.20}
"""Changes of a ratio that are the same. On the CPU other programs empty the caches, which moves
the ratio by up to 18 %"""
REPEATS = 3
"""Runs of each timed command"""
