"""The rules find what they are for, in listings made up for each."""

import re
from dataclasses import replace

import pytest

from .lint import Limit, advisories, problems, release_problems, resource_problems
from .sass import CODE, Instruction, Kernel, parse

CLEAN_LOG = """ptxas info    : Compiling entry function 'f_{kind}' for 'sm_90a'
ptxas info    : Function properties for f_{kind}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem
"""
LIMIT = Limit("f", registers=40, per_mma=5)
MMA = """
ACQBULK
.L_x_1:
LOP3.LUT R8, R12, 0x81c081c0, RZ, 0xc0, !PT
HMMA.16816.F32.BF16 R4, R8, R16, R4
ISETP.NE.AND P0, PT, R28, RZ, PT
@P0 BRA `(.L_x_1)
PREEXIT
EXIT
"""
WGMMA = """
ACQBULK
USETMAXREG.TRY_ALLOC.CTAPOOL UP0, 0xf0
UTMALDG.S.G [UR10], [UR6], UR5
LDS.128 R4, [R2+UR6+-0x800]
.L_x_1:
HMUL2.BF16_V2 R32, R3, R12.reuse
WARPGROUP.ARRIVE
HGMMA.64x16x16.F32.BF16 R24, R32, gdesc[UR12], R24, gsb0
WARPGROUP.DEPBAR.LE gsb0, 0x0
@P0 BRA `(.L_x_1)
PREEXIT
EXIT
"""
WAIT = "WARPGROUP.DEPBAR.LE gsb0, 0x0\n"


def listing(text: str, name: str) -> str:
    """What nvdisasm would print."""
    lines = []
    for line in text.strip().splitlines():
        guard, code = re.fullmatch(r"(?:(@!?U?P\w+) )?(.*)", line).groups()
        is_label = line.endswith(":")
        lines.append(line if is_label else f"        /*0010*/  {guard or '':>6}  {code} ;")
    return "\n".join([f".text.{name}:", *lines, ".section .nv.info", "        /*0000*/ STL [R1] ;"])


def kernel(text: str, name: str = "f_wgmma") -> Kernel:
    (found,) = parse(listing(text, name))
    return found


def found_in(text: str, kind: str) -> list[str]:
    return problems(kernel(text, f"f_{kind}"), CLEAN_LOG.format(kind=kind), LIMIT)


def test_clean_kernels_are_clean():
    assert found_in(MMA, "mma") == found_in(WGMMA, "wgmma") == []


@pytest.mark.parametrize(
    "old, new, problem",
    [
        ("ACQBULK\n", "", "no ACQBULK (griddepcontrol.wait)"),
        ("PREEXIT\n", "", "no PREEXIT (griddepcontrol.launch_dependents)"),
        ("PREEXIT", "STL [R1+0x8], R4\nPREEXIT", "STL [R1+0x8], R4 uses local memory"),
        ("PREEXIT", "LDL.64 R4, [R1]\nPREEXIT", "LDL.64 R4, [R1] uses local memory"),
        ("PREEXIT", "@P0 BRX R8 -0x10\nPREEXIT", "BRX R8 -0x10 goes nobody knows where"),
        ("LOP3", "NOP\nNOP\nLOP3", "6 instructions for 1 MMA in the loop, 6.00 each; at most 5"),
        ("@P0 BRA `(.L_x_1)\n", "", "no loop multiplies matrices"),
        ("F32.BF16", "F32", "no HMMA.16816.F32.BF16"),
        (
            "PREEXIT",
            "HGMMA.64x8x16.F32.BF16 R4, R8, gdesc[UR4], R4, gsb0\nPREEXIT",
            "HGMMA.64x8x16.F32.BF16 R4, R8, gdesc[UR4], R4, gsb0 has no place here",
        ),
    ],
)
def test_a_rule_of_mma_finds_its_problem(old, new, problem):
    assert problem in found_in(MMA.replace(old, new), "mma")


@pytest.mark.parametrize(
    "old, new, problem",
    [
        ("R24, R32, gdesc", "R24, gdesc", "A is in shared memory"),
        ("F32.BF16", "F32", "another kind"),
        ("64x16x16.F32.BF16", "64x16x8.F32.TF32", "no HGMMA.64xNx16.F32.BF16"),
        ("UTMALDG", "NOP", "no UTMALDG"),
        (WAIT, "", "HMUL2.BF16_V2 R32, R3, R12.reuse writes R32, which an HGMMA still reads"),
    ],
)
def test_a_rule_of_wgmma_finds_its_problem(old, new, problem):
    assert any(problem in line for line in found_in(WGMMA.replace(old, new), "wgmma"))


def test_a_number_of_hgmma_may_have_a_in_shared_memory():
    text = WGMMA.replace("R24, R32, gdesc", "R24, gdesc")
    log = CLEAN_LOG.format(kind="wgmma")
    assert problems(kernel(text), log, replace(LIMIT, shared_a=1)) == []
    assert problems(kernel(text), log, replace(LIMIT, shared_a=0)) != []


def test_what_a_limit_needs_is_missed():
    limit = replace(LIMIT, needs=(r"LDS\.128",))
    log = CLEAN_LOG.format(kind="wgmma")
    assert problems(kernel(WGMMA), log, limit) == []
    text = WGMMA.replace("LDS.128", "LDS.64")
    assert problems(kernel(text), log, limit) == [r"no LDS\.128"]


GMMA = "HGMMA.64x16x16.F32.BF16 R24, R{}, gdesc[UR12], R24{}\n"
TWO = GMMA.format(32, ", gsb0") + GMMA.format(36, ", gsb0")
WRITE = "HMUL2.BF16_V2 R{}, R3, R12\n"
LEAVE_ONE = "WARPGROUP.DEPBAR.LE gsb0, 0x1\n"


@pytest.mark.parametrize(
    "text, registers",
    [
        (TWO + WRITE.format(35), [35]),
        (TWO + LEAVE_ONE + WRITE.format(35), []),
        (TWO + LEAVE_ONE + WRITE.format(36), [36]),
        (TWO + WAIT + WRITE.format(36), []),
        (TWO + WRITE.format(40) + WRITE.format(31) + WRITE.format(24), []),
        (TWO + "LDS.128 R28, [R2]\n" + "LDS.128 R29, [R2]\n", [32]),
        (TWO + "STS.128 [R32], R32\n" + "ISETP.NE.AND P0, PT, R33, RZ, PT\n", []),
        # two HGMMA of one group: the second commits both
        (GMMA.format(32, "") + GMMA.format(36, ", gsb0") + LEAVE_ONE + WRITE.format(32), [32]),
        (GMMA.format(32, "") + WAIT + WRITE.format(32), [32]),
        # a way that waits and one that does not
        (TWO + "@P0 BRA `(.L_x_1)\n" + WAIT + ".L_x_1:\n" + WRITE.format(32), [32]),
        ("@P0 BRA `(.L_x_1)\n" + TWO + ".L_x_1:\n" + WRITE.format(32), [32]),
        (TWO + "BRA `(.L_x_1)\n" + WRITE.format(32) + ".L_x_1:\n" + WAIT, []),
        # round the loop twice
        (".L_x_1:\n" + WRITE.format(36) + TWO + LEAVE_ONE + "@P0 BRA `(.L_x_1)\n", [36]),
        (".L_x_1:\n" + WRITE.format(32) + TWO + LEAVE_ONE + "@P0 BRA `(.L_x_1)\n", []),
        # a branch through a table
        (
            TWO + 'BRX R8 -0x20 (*"BRANCH_TARGETS .L_x_1,.L_x_2"*)\n.L_x_1:\n' + WAIT
            + "EXIT\n.L_x_2:\n" + WRITE.format(32),
            [32],
        ),
    ],
)  # fmt: skip
def test_overwritten_operands(text, registers):
    found = kernel(text + "EXIT\n").overwritten_operands()
    assert [int(re.search(r"writes R(\d+)", line)[1]) for line in found] == registers


@pytest.mark.parametrize(
    "code, written",
    [
        ("LOP3.LUT R8, R12, 0x81c081c0, RZ, 0xc0, !PT", {8}),
        ("IADD3 R3, P1, R2, 0x4, RZ", {3}),
        ("LOP3.LUT P0, R7, R2, 0x1, RZ, 0xc0, !PT", {7}),
        ("ISETP.NE.AND P1, PT, R28, RZ, PT", set()),
        ("LDG.E.128.CONSTANT R8, desc[UR6][R2.64]", {8, 9, 10, 11}),
        ("LDC.64 R16, c[0x0][0x218]", {16, 17}),
        ("IMAD.WIDE.U32 R2, R0, 0x10, R2", {2, 3}),
        ("CS2R R4, SRZ", {4, 5}),
        ("LDSM.16.M88.4 R12, [R3]", {12, 13, 14, 15}),
        ("SHFL.BFLY PT, R5, R6, 0x1, 0x1f", {5}),
        ("HMMA.16816.F32.BF16 R4, R8, R16, R4", {4, 5, 6, 7}),
        ("HGMMA.64x16x16.F32.BF16 R24, R32, gdesc[UR12], R24, gsb0", set(range(24, 32))),
        ("STG.E.64 desc[UR10][R2.64+0x4], R24", set()),
        ("SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R3+UR7], R2", set()),
        ("SYNCS.ARRIVE.TRANS64 RZ, [UR11], R3", set()),
        ("BAR.SYNC.DEFER_BLOCKING R4, R5", set()),
        ("RET.REL.NODEC R4 `(f)", set()),
        ("ACQBULK", set()),
    ],
)
def test_written_registers(code, written):
    match = CODE.match(f"  /*0010*/   {code} ;")
    assert Instruction(match[1], match[2], match[3] or "").written == written


def test_loops_are_innermost_and_counted_along_the_longest_way():
    mma = "HMMA.16816.F32.BF16 R4, R8, R16, R4\n"
    wait = ".L_x_3:\nNOP\n@P1 BRA `(.L_x_3)\n"
    either = "@P2 BRA `(.L_x_4)\n" + mma + "BRA `(.L_x_5)\n.L_x_4:\n" + mma + "NOP\n.L_x_5:\n"
    inner = ".L_x_2:\n" + wait + either + "@P0 BRA `(.L_x_2)\n"
    (loop,) = kernel(".L_x_1:\n" + mma + inner + mma + "@P0 BRA `(.L_x_1)\nEXIT").loop_bodies()
    assert (loop.mma, loop.instructions) == (1, 6)


@pytest.mark.parametrize(
    "old, new",
    [
        ("0 bytes stack", "8 bytes stack"),
        ("0 bytes spill stores", "4 bytes spill stores"),
        ("0 bytes spill loads", "4 bytes spill loads"),
        ("1024 bytes smem", "16 bytes lmem"),
        ("Used 40 registers", "Used 41 registers"),
        ("'f_mma'", "'another'"),
    ],
)
def test_what_ptxas_counts(old, new):
    log = CLEAN_LOG.format(kind="mma")
    assert resource_problems(log, "f_mma", LIMIT) == []
    assert resource_problems(log.replace(old, new), "f_mma", LIMIT) != []


def test_advisories_and_releases():
    line = "ptxas info    : (C{}) Potential Performance Loss"
    for code in (7508, 7510, 7511, 7512, 7513, 7514, 7515, 7517, 7519, 7600):
        assert len(advisories(line.format(code))) == 1
    assert advisories(line.format(7509)) == advisories(CLEAN_LOG) == []
    assert release_problems(b"tools, release 13.5, V13.5.37\0 release 13.3") == []
    assert release_problems(b"release 13.5\0release 13.2\0") != []
    assert release_problems(b"release 12.9") != [] != release_problems(b"ELF")
