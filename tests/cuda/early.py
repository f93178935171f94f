"""What a kernel touches before griddepcontrol.wait, and through which of its parameters."""

import re
from dataclasses import dataclass
from functools import reduce

from .sass import Instruction, Kernel

MEMORY = {
    *("LD", "LDG", "LDGSTS", "LDGDEPBAR", "UBLKCP", "UBLKPF", "UTMALDG", "UTMAPF"),
    *("ST", "STG", "RED", "REDG", "ATOM", "ATOMG", "UBLKRED", "UTMASTG", "UTMAREDG", "CCTL"),
} - {"LDGDEPBAR", "CCTL"}
"""Instructions that touch global memory, or may"""
READS = {"LDG", "LDGSTS", "UBLKPF", "UTMALDG", "UTMAPF", "UBLKCP"}
"""Those that only read it; of UBLKCP those whose source is global"""
FIRST_PARAMETER = 0x210
"""Where parameters begin in the constant bank"""
BASE_AT = 0x198
"""Where the bank keeps the address of the first one, from which those of tensor maps are counted"""
BASE = -1
"""In place of a slot: that address"""
IMMEDIATE = re.compile(r"(?<![\w\[])0x([0-9a-f]+)")
CONSTANT = re.compile(r"c\[0x0\]\[0x([0-9a-f]+)\]")
ADDRESS = re.compile(r"\b(U?R)(\d+)\b")
Slots = frozenset[int]
State = dict[str, Slots]
"""Register -> the 8-byte parameter slots whose values went into it"""
NONE: Slots = frozenset()


@dataclass(frozen=True)
class Access:
    """An instruction that may run before the wait."""

    instruction: Instruction
    slots: Slots
    """parameters that went into its addresses"""

    @property
    def reads(self) -> bool:
        opcode = self.instruction.opcode
        is_store = self.instruction.base == "UBLKCP" and not opcode.startswith("UBLKCP.S.G")
        return self.instruction.base in READS and not is_store


def early_accesses(kernel: Kernel) -> list[Access]:
    """Accesses to global memory on a way on which no ACQBULK lies before."""
    found: list[Access] = []
    states = _before_the_wait(kernel)
    for number, state in states.items():
        for instruction in kernel.blocks[number]:
            if _waits(instruction):
                break
            if instruction.base in MEMORY:
                access = Access(instruction, _slots_read(instruction, state))
                found.append(access)
            state = _step(state, instruction)
    return found


def problems_before_the_wait(kernel: Kernel, num_pointers: int, weights: Slots) -> list[str]:
    """Early accesses other than reads of what no kernel writes.

    num_pointers  how many of the first parameters are addresses
    weights       those of them that no kernel writes through
    """
    found = []
    for access in early_accesses(kernel):
        through = access.slots & set(range(num_pointers))
        if not access.reads:
            found.append(f"{access.instruction} may write before the wait")
        elif not through or not through <= weights:
            named = ", ".join(map(str, sorted(through))) or "nobody knows which"
            found.append(f"{access.instruction} reads parameter {named} before the wait")
    return found


def starts_next_early(kernel: Kernel) -> bool:
    """Whether the next kernel may start although this one has not waited."""
    for number in _before_the_wait(kernel):
        for instruction in kernel.blocks[number]:
            if _waits(instruction):
                break
            if instruction.base == "PREEXIT":
                return True
    return False


def _waits(instruction: Instruction) -> bool:
    return instruction.base == "ACQBULK" and instruction.guard is None


def _before_the_wait(kernel: Kernel) -> dict[int, State]:
    """Blocks that can be reached without a wait, and what their registers may hold at the top."""
    states: dict[int, State] = {0: {}}
    open_ends = [0]
    while open_ends:
        number = open_ends.pop()
        if any(_waits(i) for i in kernel.blocks[number]):
            continue
        after = reduce(_step, kernel.blocks[number], states[number])
        for block in kernel.after[number]:
            old = states.get(block)
            new = after if old is None else _joined(old, after)
            if new != old:
                states[block] = new
                open_ends.append(block)
    return states


def _joined(one: State, other: State) -> State:
    return {r: one.get(r, NONE) | other.get(r, NONE) for r in one.keys() | other.keys()}


def _step(state: State, instruction: Instruction) -> State:
    """After an instruction; a guarded one may not have run."""
    written = _written(instruction)
    if not written:
        return state
    slots = _slots_read(instruction, state)
    is_certain = instruction.guard is None
    held = {r: slots if is_certain else slots | state.get(r, NONE) for r in written}
    return {**state, **held}


def _written(instruction: Instruction) -> set[str]:
    found = {f"R{number}" for number in instruction.written}
    first = instruction.operands.split(", ")
    uniform = [operand for operand in first[:2] if re.fullmatch(r"UR\d+", operand)]
    if uniform and not found and instruction.base not in MEMORY and "SYNCS" not in instruction.base:
        number = int(uniform[0][2:])
        wide = {"64", "WIDE"} & set(instruction.opcode.split("."))
        found = {f"UR{number + i}" for i in range(2 if wide else 1)}
    return found


def _slots_read(instruction: Instruction, state: State) -> Slots:
    """Slots of everything it reads; of an access to memory, of its addresses only."""
    operands = re.sub(r"^UR\d+, ", "", instruction.operands)  # without what it writes
    if instruction.base in MEMORY:
        operands = _global_address(instruction)
    constants = {int(at, 16) for at in CONSTANT.findall(operands)}
    slots = {(at - FIRST_PARAMETER) // 8 for at in constants if at >= FIRST_PARAMETER}
    slots |= {BASE for at in constants if at == BASE_AT}
    is_half = instruction.base == "UIADD3"  # of an address: the other half is an instruction too
    for kind, number in ADDRESS.findall(operands):
        pair = (int(number), int(number) + (0 if is_half else 1))
        slots |= frozenset().union(*(state.get(f"{kind}{n}", NONE) for n in pair))
    further = IMMEDIATE.findall(operands)
    if is_half and BASE in slots and further:
        slots = slots - {BASE} | {int(further[0], 16) // 8}
    return frozenset(slots)


def _global_address(instruction: Instruction) -> str:
    """Of copies to shared memory the second bracket; else all of them without descriptors."""
    brackets = re.findall(r"(?<!desc)\[([^\]]*)\]", instruction.operands)
    to_shared = instruction.opcode.startswith(("UBLKCP.S.G", "UTMALDG"))
    return brackets[1] if to_shared else " ".join(brackets)
