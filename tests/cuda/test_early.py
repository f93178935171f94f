"""Nothing that another kernel writes is touched before griddepcontrol.wait: what code tells."""

import re
import sys

import pytest

from haast.cuda.build import SOURCES, build

from .delays import DELAYS, KERNELS, PLANTED
from .early import early_accesses, problems_before_the_wait, starts_next_early
from .sass import disassemble, parse
from .test_sass import MODULES, kernels
from .test_sass_rules import kernel

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="kernels are built on Linux")
WEIGHTS = (
    ("rms_norm_bf16", 3, {1}),
    ("add_rms_norm_bf16", 5, {2}),
    (r"linear_mma_m\d+", 4, {1}),
    (r"linear_wgmma_c\d_n\d+", 40, {22}),
    (r"moe_down_mma_n\d+", 7, {1, 2, 3}),
    (r"shortlist_scan_m\d+", 5, {1}),
    (r"join_ranks_\d+", 8, {2, 6}),
    ("decode_step", 14, {0, 1, 11}),
    (r"decode_step_\d", 15, {0, 1, 11, 14}),
)
"""Kernels that read weights before the wait: addresses that they take, those of weights. Parameter
11 of decode_step is where logits go: what streams asks only whether it is null; 14, of several
ranks, leads to a table of their inboxes. Of linear_wgmma words 6 to 21 are the tensor map of
tokens, 22 to 37 that of the weight. Parameter 3 of moe_down is where experts begin in the routing,
which moe_up has waited for before it lets moe_down start"""
OF_TABLES = {"LDG.E.64", "LDG.E.U16.CONSTANT", "UBLKCP.S.G", "UBLKPF.L2"}
TABLES = {f"decode_step{ranks}": OF_TABLES for ranks in ("", "_2", "_4", "_8")}
"""Kernels whose parameters lead to tables of addresses, some of what is written: which of these an
access goes by its code does not tell. So before the wait they have only the instructions by which
tables and weights are read, none by which words of other CTAs are; the sources tell the rest."""
ANY = (".*", 99, frozenset())
READ = "LDG.E.128 R8, desc[UR6][R2.64]"


def rule_of(name):
    return next(rule for rule in (*WEIGHTS, ANY) if re.fullmatch(rule[0], name))


def problems(kernel):
    _, num_pointers, weights = rule_of(kernel.name)
    return problems_before_the_wait(kernel, num_pointers, frozenset(weights))


@on_linux
@pytest.mark.parametrize("module", MODULES)
def test_kernels_wait_first(module):
    found = {kernel.name: problems(kernel) for kernel in kernels(module)}
    assert {name: lines for name, lines in found.items() if lines} == {}


@on_linux
def test_every_row_is_about_kernels_that_do_so():
    begin_early = {k.name for module in MODULES for k in kernels(module) if early_accesses(k)}
    assert {name for name in begin_early if rule_of(name) is ANY} == set()
    assert [r for r, *_ in WEIGHTS if not any(re.fullmatch(r, name) for name in begin_early)] == []


@on_linux
def test_the_routing_has_come_before_moe_down_may_start():
    names = {}
    for module in ("moe_mma", "moe_wgmma"):
        names |= {k.name: starts_next_early(k) for k in kernels(module)}
    ups = {name: early for name, early in names.items() if name.startswith("moe_up")}
    assert len(ups) > 3 and not any(ups.values()), ups
    assert names["moe_down_mma_n8"] and names["moe_down_mma_n16"]


@on_linux
def test_kernels_with_tables_read_them_and_weights():
    for name, opcodes in TABLES.items():
        (found,) = (k for module in MODULES for k in kernels(module) if k.name == name)
        early = early_accesses(found)
        assert {access.instruction.opcode for access in early} == opcodes
        all_reads = [i.opcode for block in found.blocks for i in block if i.base.startswith("LD")]
        assert "LDG.E.STRONG.GPU" in all_reads, "words of other CTAs, after the wait"


def test_what_streams_and_fetches_before_the_wait_names_weights_only():
    """All of step_stream.cuh but the keys, which are fetched after it."""
    early, _, late = (SOURCES / "step_stream.cuh").read_text().partition("Piece keys(")
    assert "k_cache" in late and "wait_for_previous_kernel" not in early
    fields = r"\b(?:layer|layer\(\S+\)|net)\.(\w+)"
    named = set(re.findall(fields, early)) - {"num_experts", "num_heads", "num_layers", "hidden"}
    assert named == {
        *("attn_norm", "mlp_norm", "sinks", "head", "up_weight", "up_bias", "down_weight"),
        *("down_bias", "qkv_weight", "qkv_bias", "out_weight", "out_bias"),
        *("router_weight", "router_bias"),
    }


@on_linux
@pytest.mark.parametrize("flags", [(), (DELAYS,)], ids=["plain", "late"])
def test_planted_races_are_found_in_real_code(flags, tmp_path):
    build(PLANTED, tmp_path, (*flags, f"-I{SOURCES}"))
    found = {k.name: k for k in parse(disassemble(tmp_path / "planted.cubin"))}
    assert set(found) == set(KERNELS)
    assert problems(found["planted_right"]) == []
    (read,) = problems_before_the_wait(found["planted_reads_early"], 2, frozenset())
    assert read.startswith("LDG") and read.endswith("reads parameter 0 before the wait")
    (written,) = problems(found["planted_writes_early"])
    assert written.startswith("STG") and written.endswith("may write before the wait")
    sleeps = [k.count("NANOSLEEP") for k in found.values()]
    assert all(sleeps) if flags else not any(sleeps)


def lines(text, num_pointers=4, weights=frozenset({1})):
    return problems_before_the_wait(kernel(text), num_pointers, weights)


@pytest.mark.parametrize(
    "text, expected",
    [
        (f"LDC.64 R2, c[0x0][0x218]\n{READ}\nACQBULK\n", ""),
        (f"LDC.64 R2, c[0x0][0x210]\nACQBULK\n{READ}\n", ""),
        (f"LDC.64 R2, c[0x0][0x210]\n{READ}\nACQBULK\n", "parameter 0 "),
        (f"LDC.64 R2, c[0x0][0x210]\n{READ}\n", "parameter 0 "),
        (f"LDC.64 R2, c[0x0][0x210]\n@P0 ACQBULK\n{READ}\n", "parameter 0 "),
        # through arithmetic, a number on the way, a uniform register, a guarded move
        (f"LDC.64 R4, c[0x0][0x218]\nIADD3 R2, P1, R4, c[0x0][0x230], RZ\n{READ}\n", ""),
        (f"ULDC.64 UR4, c[0x0][0x220]\nIMAD.U32 R2, RZ, RZ, UR4\n{READ}\n", "parameter 2 "),
        (
            f"LDC.64 R2, c[0x0][0x218]\nULDC UR4, c[0x0][0x224]\n@P0 MOV R3, UR4\n{READ}\n",
            "parameter 1, 2 ",
        ),
        (f"LDS.64 R2, [R9]\n{READ}\nACQBULK\n", "nobody knows which"),
        # on one of two ways, and round a loop
        (f"LDC.64 R2, c[0x0][0x210]\n@P0 BRA `(.L_1)\nACQBULK\n.L_1:\n{READ}\n", "parameter 0 "),
        (f".L_1:\n{READ}\nLDC.64 R2, c[0x0][0x210]\n@P0 BRA `(.L_1)\nACQBULK\n", "parameter 0 "),
        ("STG.E.64 desc[UR10][R2.64+0x4], R24\nACQBULK\n", "may write"),
        ("RED.E.ADD.STRONG.GPU desc[UR10][R2.64], R24\nACQBULK\n", "may write"),
        ("UBLKCP.G.S [UR22], [UR20], UR6\nACQBULK\n", "may write"),
        (
            "ULDC.64 UR20, c[0x0][0x218]\nULDC.64 UR22, c[0x0][0x210]\n"
            "UBLKCP.S.G [UR22], [UR20], UR6, desc[UR18]\nACQBULK\n",
            "",
        ),
        ("STS.128 [R32], R32\nLDS R4, [R8]\nACQBULK\n", ""),
    ],
)
def test_accesses_before_the_wait(text, expected):
    found = lines(text + "EXIT")
    assert [expected in line for line in found] == ([True] if expected else []), found
