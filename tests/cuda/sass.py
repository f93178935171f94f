"""Reads SASS as nvdisasm prints it: instructions, the registers they write, loops, hazards."""

import importlib.util
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SECTION = re.compile(r"^\.text\.(\w+):$")
LABEL = re.compile(r"^((?:\.L|\$)[\w$]+):$")
CODE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:(@!?U?P\w+)\s+)?(\S+?)(?:\s+([^;]*?))?\s*;")
PREDICATE = re.compile(r"!?U?P(\d+|T)")
REGISTER = re.compile(r"R(\d+)")
A_IN_REGISTERS = re.compile(r"R\d+, R\d+(\.reuse)?, gdesc")
READ_FIRST = {"BAR", "BRX", "BRXU", "JMX", "RET", "CALL", "NANOSLEEP", "WARPSYNC", "FCHK", "BPT"}
"""They write no register, nor does what sets predicates."""
JUMPS = {"BRA", "CALL", "JMP", "BRX", "BRXU", "JMX"}
UNCOMMITTED = -1


@dataclass(frozen=True)
class Instruction:
    guard: str | None
    opcode: str
    operands: str

    @cached_property
    def base(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def targets(self) -> list[str]:
        """Labels it may go to; of an indirect branch nvdisasm lists them in a comment."""
        if self.base not in JUMPS:
            return []
        return re.findall(r"`\(([.$][\w$]+)\)", self.operands) or re.findall(
            r"\.L_\w+", self.operands.partition("BRANCH_TARGETS")[2]
        )

    @property
    def falls_through(self) -> bool:
        ends = self.base in JUMPS - {"CALL"} | {"EXIT", "RET"}
        is_conditional = self.guard is not None or self.opcode.startswith(("BRA.U", "BRA.DIV"))
        return not ends or is_conditional or PREDICATE.match(self.operands) is not None

    @cached_property
    def written(self) -> frozenset[int]:
        """General registers that it may write; nvdisasm's own life ranges agree."""
        if "SETP" in self.base or self.base in READ_FIRST:
            return frozenset()
        for operand in self.operands.split(", "):
            if PREDICATE.fullmatch(operand):
                continue
            match = REGISTER.fullmatch(operand)
            return frozenset(range(int(match[1]), int(match[1]) + self._width)) if match else NONE
        return NONE

    @property
    def _width(self) -> int:
        """Registers of its result."""
        parts = self.opcode.split(".")
        if self.base in ("HGMMA", "QGMMA", "IGMMA"):
            return int(parts[1].split("x")[1]) // (4 if parts[2] == "F16" else 2)
        if self.base in ("HMMA", "IMMA"):
            return 2 if parts[2] == "F16" else 4
        if self.base == "LDSM":
            return int(parts[-1]) if parts[-1] in ("2", "4") else 1
        if "128" in parts:
            return 4
        wide = {"64", "WIDE", "F64"} & set(parts) or self.base in ("DADD", "DMUL", "DFMA")
        wide = wide or (self.base in ("F2I", "I2I") and {"S64", "U64"} & set(parts))
        return 2 if wide or (self.base == "CS2R" and "32" not in parts) else 1

    @property
    def a_registers(self) -> frozenset[int]:
        """The four registers that a register-A HGMMA goes on reading after it was issued."""
        if self.base != "HGMMA" or not A_IN_REGISTERS.match(self.operands):
            return NONE
        first = int(REGISTER.match(self.operands.split(", ")[1])[1])
        return frozenset(range(first, first + 4))

    def __str__(self) -> str:
        return f"{self.opcode} {self.operands}".strip()


NONE: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Loop:
    """An innermost loop around matrix instructions: of the ways once round it, the one with most
    of these, and of those the longest."""

    mma: int
    instructions: int

    @property
    def per_mma(self) -> float:
        return self.instructions / self.mma


class Kernel:
    """The instructions of one kernel as blocks that are entered at the top and left at the end."""

    def __init__(self, name: str, lines: list[str]) -> None:
        self.name = name
        self.blocks: list[list[Instruction]] = [[]]
        labels: dict[str, int] = {}
        for line in lines:
            if match := LABEL.match(line):
                if self.blocks[-1]:
                    self.blocks.append([])
                labels[match[1]] = len(self.blocks) - 1
            elif match := CODE.match(line):
                self.blocks[-1].append(Instruction(match[1], match[2], match[3] or ""))
                if self.blocks[-1][-1].targets or not self.blocks[-1][-1].falls_through:
                    self.blocks.append([])
        self.after = [self._successors(number, labels) for number in range(len(self.blocks))]
        self.before: dict[int, set[int]] = defaultdict(set)
        for number, following in enumerate(self.after):
            for block in following:
                self.before[block].add(number)

    def _successors(self, number: int, labels: dict[str, int]) -> set[int]:
        block = self.blocks[number]
        found = {labels[target] for target in block[-1].targets} if block else set()
        if number + 1 < len(self.blocks) and (not block or block[-1].falls_through):
            found.add(number + 1)
        return found

    @property
    def instructions(self) -> list[Instruction]:
        return [instruction for block in self.blocks for instruction in block]

    def count(self, pattern: str) -> int:
        return sum(bool(re.match(pattern, str(i))) for i in self.instructions)

    def dominators(self) -> list[set[int]]:
        """Of each block, those that every way to it passes; all of them if there is no way."""
        every = set(range(len(self.blocks)))
        found = [{0}, *(every for _ in self.blocks[1:])]
        changed = True
        while changed:
            changed = False
            for number in range(1, len(self.blocks)):
                ways = [found[block] for block in self.before[number]]
                new = set.intersection(*ways) | {number} if ways else every
                changed |= new != found[number]
                found[number] = new
        return found

    def loop_bodies(self) -> list[Loop]:
        """Innermost loops that multiply matrices; the one with most such instructions first, and of
        equal ones the shorter."""
        dominators = self.dominators()
        bodies: dict[int, set[int]] = {}
        for number, following in enumerate(self.after):
            for head in following & dominators[number]:
                bodies[head] = bodies.get(head, {head}) | self._reaching(number, head)
        loops = [(body, self._longest_way(head, body, dominators)) for head, body in bodies.items()]
        loops = [(body, loop) for body, loop in loops if loop.mma]
        inner = [loop for body, loop in loops if not any(other < body for other, _ in loops)]
        return sorted(inner, key=lambda loop: (-loop.mma, loop.instructions))

    def _reaching(self, number: int, head: int) -> set[int]:
        """Blocks with a way to this one that does not pass the head."""
        found, open_ends = {head}, [number]
        while open_ends:
            block = open_ends.pop()
            if block not in found:
                found.add(block)
                open_ends += self.before[block]
        return found

    def _longest_way(self, head: int, body: set[int], dominators: list[set[int]]) -> Loop:
        """Once round, without turning round in loops inside."""
        known: dict[int, tuple[int, int]] = {}
        way = [head]
        while way:
            number = way[-1]
            known.setdefault(number, (0, 0))
            following = self.after[number] & body - dominators[number]
            if unknown := following - known.keys():
                way.append(min(unknown))
                continue
            block = self.blocks[way.pop()]
            mma = sum(i.base in ("HMMA", "HGMMA") for i in block)
            rest = max((known[after] for after in following), default=(0, 0))
            known[number] = (mma + rest[0], len(block) + rest[1])
        return Loop(*known[head])

    def overwritten_operands(self) -> list[str]:
        """Instructions that may write A registers of an HGMMA that has not been waited for.

        Follows every way through the kernel, round its loops too. In flight is a map of register
        to the number of groups committed since its own; of two ways the younger counts.
        """
        entry: list[dict[int, int] | None] = [{}, *(None for _ in self.blocks[1:])]
        found: dict[str, None] = {}
        open_ends = [0]
        while open_ends:
            number = open_ends.pop()
            state = entry[number] or {}
            for instruction in self.blocks[number]:
                hit = instruction.written & state.keys()
                if hit:
                    found[f"{instruction} writes R{min(hit)}, which an HGMMA still reads"] = None
                state = _step(state, instruction)
            for block in self.after[number]:
                old = entry[block]
                new = state if old is None else _younger(old, state)
                if new != old:
                    entry[block] = new
                    open_ends.append(block)
        return list(found)


def _step(state: dict[int, int], instruction: Instruction) -> dict[int, int]:
    """What is in flight after an instruction."""
    if instruction.base == "HGMMA":
        state = {**state, **dict.fromkeys(instruction.a_registers, UNCOMMITTED)}
        if "gsb0" in instruction.operands:
            state = {register: min(age + 1, 64) for register, age in state.items()}
    elif instruction.opcode.startswith("WARPGROUP.DEPBAR"):
        stay = int(instruction.operands.split(", ")[1], 16)
        state = {register: age for register, age in state.items() if age < stay}
    return state


def _younger(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    return {r: min(one.get(r, 99), other.get(r, 99)) for r in one.keys() | other.keys()}


def parse(listing: str) -> list[Kernel]:
    """The kernels of what nvdisasm prints."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in listing.splitlines():
        if match := SECTION.match(line.strip()):
            lines = found.setdefault(match[1], [])
        elif line.strip().startswith(".section"):
            lines = []
        lines.append(line.strip())
    return [Kernel(name, lines) for name, lines in found.items()]


def disassemble(cubin: Path) -> str:
    """A cubin's code as text, without a GPU."""
    (nvidia,) = importlib.util.find_spec("nvidia").submodule_search_locations
    tool = Path(nvidia) / "cu13/bin/nvdisasm"
    return subprocess.check_output([tool, "-c", cubin], text=True)
