"""What has to be true of every kernel's machine code; each rule gives one line a problem."""

import re
from dataclasses import dataclass
from pathlib import Path

from .sass import JUMPS, Kernel

OLDEST_RELEASE = (13, 3)
ADVISORY = re.compile(r"\bC(?:7508|751[0-5]|7517|7519|7600)\b.*")
"""setmaxnreg ignored; wgmma serialised; waits or arrives put in; from ptxas"""
HMMA = r"HMMA\.16816\.F32\.BF16 "
HGMMA = r"HGMMA\.64x\d+x16\.F32\.BF16 "
PDL = {"ACQBULK": "griddepcontrol.wait", "PREEXIT": "griddepcontrol.launch_dependents"}
WGMMA_NEEDS = ("UTMALDG",)


@dataclass(frozen=True)
class Limit:
    """A row of the table: what kernels whose name matches may cost."""

    pattern: str
    registers: int
    """Per thread at launch, as ptxas counts them"""
    per_mma: float | None = None
    """Instructions of the innermost loop per HMMA or HGMMA; the loop with most of these"""
    needs: tuple[str, ...] = ()
    """Instructions that have to be there besides what the kind of kernel needs"""
    shared_a: int = 0
    """How many HGMMA may have A in shared memory"""


def release_problems(cubin: bytes) -> list[str]:
    """Which ptxas made it; earlier ones reuse A registers of a running wgmma."""
    releases = re.findall(rb"release (\d+)\.(\d+)", cubin)
    old = [f"{int(a)}.{int(b)}" for a, b in releases if (int(a), int(b)) < OLDEST_RELEASE]
    if not releases:
        return ["names no ptxas release"]
    return [f"made by ptxas {release}, older than 13.3" for release in old]


def advisories(log: str) -> list[str]:
    """Warnings of ptxas that cost speed."""
    return [f"ptxas: {match[0]}" for match in ADVISORY.finditer(log)]


def log_of(log: str, symbol: str) -> str:
    """The part of ptxas -v's output about one kernel."""
    for part in log.split("Compiling entry function ")[1:]:
        if part.startswith(f"'{symbol}'"):
            return part
    return ""


def resource_problems(log: str, symbol: str, limit: Limit) -> list[str]:
    """Stack, spills, local memory and registers in what ptxas says."""
    said = log_of(log, symbol)
    clean = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"
    found = [] if clean in " ".join(said.split()) else ["ptxas does not say: " + clean]
    found += [f"ptxas: {match[0]}" for match in re.finditer(r"[1-9]\d* bytes lmem", said)]
    used = re.search(r"Used (\d+) registers", said)
    if used is None or int(used[1]) > limit.registers:
        found.append(f"{used[1] if used else '?'} registers; at most {limit.registers}")
    return found


def common_problems(kernel: Kernel, limit: Limit) -> list[str]:
    """Rules for every kernel."""
    found = [f"{i} uses local memory" for i in kernel.instructions if i.base in ("LDL", "STL")]
    jumps = [i for i in kernel.instructions if i.base in JUMPS and not i.targets]
    found += [f"{i} goes nobody knows where" for i in jumps]
    found += [f"no {opcode} ({ptx})" for opcode, ptx in PDL.items() if not kernel.count(opcode)]
    found += [f"no {opcode}" for opcode in limit.needs if not kernel.count(opcode)]
    loops = kernel.loop_bodies()
    if limit.per_mma is not None and not loops:
        found.append("no loop multiplies matrices")
    elif limit.per_mma is not None and loops[0].per_mma > limit.per_mma:
        loop = loops[0]
        found.append(
            f"{loop.instructions} instructions for {loop.mma} MMA in the loop, "
            f"{loop.per_mma:.2f} each; at most {limit.per_mma}"
        )
    return found


def mma_problems(kernel: Kernel) -> list[str]:
    """Rules for kernels called *_mma*: synchronous tensor instructions only."""
    found = [] if kernel.count(HMMA) else ["no HMMA.16816.F32.BF16"]
    wrong = [i for i in kernel.instructions if i.base == "HGMMA"]
    wrong += [i for i in kernel.instructions if i.base == "HMMA" and not re.match(HMMA, str(i))]
    return found + [f"{i} has no place here" for i in wrong]


def wgmma_problems(kernel: Kernel, limit: Limit) -> list[str]:
    """Rules for kernels called *_wgmma*: A from registers, which nothing may overwrite."""
    found = [] if kernel.count(HGMMA) else ["no HGMMA.64xNx16.F32.BF16"]
    all_of_them = [i for i in kernel.instructions if i.base == "HGMMA"]
    found += [f"{i}: another kind" for i in all_of_them if not re.match(HGMMA, str(i))]
    shared = [i for i in all_of_them if not i.a_registers]
    found += [f"{i}: A is in shared memory" for i in shared[limit.shared_a :]]
    found += [f"no {opcode}" for opcode in WGMMA_NEEDS if not kernel.count(opcode)]
    return found + kernel.overwritten_operands()


def problems(kernel: Kernel, log: str, limit: Limit) -> list[str]:
    """Everything wrong with a kernel."""
    found = resource_problems(log, kernel.name, limit) + common_problems(kernel, limit)
    if "_wgmma" in kernel.name:
        return found + wgmma_problems(kernel, limit)
    return found + (mma_problems(kernel) if "_mma" in kernel.name else [])


def log_beside(cubin: Path) -> str:
    return cubin.with_suffix(".log").read_text()
