"""The machine code of every kernel, read without a GPU."""

import re
import sys
from functools import cache

import pytest

from haast.cuda.build import CUBINS, HOW, SOURCES

from .lint import Limit, advisories, log_beside, problems, release_problems
from .sass import Kernel, disassemble, parse

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are built on Linux")
MODULES = sorted(path.stem for path in SOURCES.glob("*.cu"))
WIDE = (r"LDS\.128",)
RING = ("UBLKCP", *WIDE)
SPLIT = ("USETMAXREG",)
"""Registers are dealt out by role"""
SENT = (r"LDG\.E\.64\.STRONG\.SYS", r"STG\.E\.STRONG\.SYS")

LIMITS = (
    Limit(r"(add_)?rms_norm_bf16", registers=32, needs=(r"LDG\.E\.128",)),
    Limit(r"join_ranks_\d", registers=104, needs=(r"LDG\.E\.128", r"STG\.E\.128\.STRONG\.SYS")),
    Limit("linear_mma_m8", registers=80, per_mma=14.0, needs=RING),
    Limit("linear_mma_m16", registers=96, per_mma=14.0, needs=RING),
    Limit(r"linear_wgmma_c\d_n\d+", registers=96, needs=("UTMALDG", "LDSM", "UCGABAR_WAIT")),
    Limit("shortlist_scan_m8", registers=80, per_mma=18.0, needs=RING),
    Limit("shortlist_scan_m16", registers=112, per_mma=19.0, needs=RING),
    Limit("shortlist_choose_m8", registers=88, per_mma=14.0, needs=(r"LDG\.E\.128", *RING)),
    Limit("shortlist_choose_m16", registers=104, per_mma=14.0, needs=(r"LDG\.E\.128", *RING)),
    Limit("sample_bf16", registers=40, needs=("UBLKCP", r"LDS\.128", "UCGABAR_WAIT")),
    Limit("sample_fp32", registers=64, needs=("UBLKCP", r"LDS\.128", "UCGABAR_WAIT")),
    Limit(r"adjust_logits_\w+", registers=40, needs=(r"LDG\.E\.128",)),
    Limit(r"bias_logits_\w+|count_tokens", registers=16),
    Limit("attention_decode_mma", registers=128, per_mma=13.5, needs=("UTMALDG", "UBLKCP")),
    Limit("attention_decode_mma_fp8", registers=128, per_mma=23.0, needs=("UTMALDG", "UBLKCP")),
    Limit("attention_merge", registers=64),
    Limit("decode_step", registers=128, per_mma=23.0, needs=(*RING, "UBLKPF", "USETMAXREG")),
    Limit(r"decode_step_\d", registers=128, per_mma=23.0, needs=(*RING, *SENT)),
    Limit("attention_prefill_wgmma", registers=128, per_mma=62.0, needs=SPLIT, shared_a=8),
    Limit("attention_prefill_wgmma_fp8", registers=128, per_mma=62.0, needs=SPLIT, shared_a=8),
    Limit("rope_kv_write_fp8", registers=40, needs=(r"LDG\.E\.128", r"STG\.E\.64")),
    Limit("rope_kv_write", registers=40, needs=(r"LDG\.E\.128", r"STG\.E\.128")),
    Limit(r"moe_combine_\w+", registers=64),
    Limit("moe_gather", registers=32),
    Limit(r"route_(place|small_\w+)", registers=32),
    Limit(r"route_choose_\w+", registers=56),
    Limit(r"moe_(up|down)_mma_n8", registers=96, per_mma=24.0, needs=RING),
    Limit(r"moe_(up|down)_mma_n16", registers=128, per_mma=12.5, needs=RING),
    Limit(
        r"(grouped|moe_(up|down))_wgmma_n48\w*", registers=128, per_mma=25.0, needs=(*SPLIT, *WIDE)
    ),
    Limit(
        r"(grouped|moe_(up|down))_wgmma_n96\w*", registers=128, per_mma=32.0, needs=(*SPLIT, *WIDE)
    ),
    Limit(
        r"(grouped|moe_(up|down))_wgmma_n192\w*", registers=128, per_mma=40.0, needs=(*SPLIT, *WIDE)
    ),
)
"""One row a kernel, by its name; what the compiler reaches, so that more has to be a choice"""


@cache
def kernels(module: str) -> list[Kernel]:
    assert (CUBINS / f"{module}.cubin").is_file(), f"kernels are not built; run: {HOW}"
    return parse(disassemble(CUBINS / f"{module}.cubin"))


def limits_of(name: str) -> list[Limit]:
    return [limit for limit in LIMITS if re.fullmatch(limit.pattern, name)]


@pytest.mark.parametrize("module", MODULES)
def test_cubin(module):
    names = [kernel.name for kernel in kernels(module)]
    assert names, "no kernels"
    assert {name: len(limits_of(name)) for name in names} == dict.fromkeys(names, 1)
    cubin = CUBINS / f"{module}.cubin"
    assert release_problems(cubin.read_bytes()) == []
    assert advisories(log_beside(cubin)) == []


@pytest.mark.parametrize("module", MODULES)
def test_kernels(module):
    log = log_beside(CUBINS / f"{module}.cubin")
    found = {
        k.name: problems(k, log, limit) for k in kernels(module) for limit in limits_of(k.name)
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_every_limit_is_about_something():
    names = [kernel.name for module in MODULES for kernel in kernels(module)]
    assert [x.pattern for x in LIMITS if not any(re.fullmatch(x.pattern, n) for n in names)] == []
