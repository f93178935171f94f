"""Ceilings and floors: arithmetic by hand, and against the table of targets."""

from dataclasses import replace

import pytest
import torch

from haast.bench.cases import read_config
from haast.bench.experts import down_work, grouped_work, mxfp4_bytes, op_work, up_work
from haast.bench.moe import TARGETS_US
from haast.bench.rooflines import (
    MATRIX,
    STREAM_BYTES,
    Work,
    ceilings_from,
    measure_ceilings,
)
from haast.bench.timing import Timing
from haast.ops import shadow_of

CONFIG = read_config("gpt-oss-20b")
SMALL = replace(CONFIG, hidden_size=64, intermediate_size=96, num_experts=6, num_active_experts=2)


def timing(us: float) -> Timing:
    return Timing(us, us, us, 1, 1)


def test_floor_is_the_larger_of_two_times(ceilings):
    assert Work(3_100_000, 0).floor_us(ceilings) == pytest.approx(1.0)
    assert Work(3_100_000, 798 * 10**6).floor_us(ceilings) == pytest.approx(1.0)
    assert Work(3_100_000, 2 * 798 * 10**6).floor_us(ceilings) == pytest.approx(2.0)
    assert Work(1, 2) + Work(10, 20) == Work(11, 22)


def test_ceilings_from_times():
    times = {"copy": timing(2000.0), "matmul": timing(1000.0)}
    found = ceilings_from(times | {"read": timing(1000.0)})
    assert found.read_tb_per_s == pytest.approx(STREAM_BYTES / 1e9)
    assert found.copy_tb_per_s == pytest.approx(2 * STREAM_BYTES / 2e9)
    assert found.matmul_tflop_per_s == pytest.approx(2 * MATRIX**3 / 1e9)
    assert found.read_by == "triton"
    without = ceilings_from(times)
    assert without.read_by == "copy" and without.read_tb_per_s == without.copy_tb_per_s


def test_bytes_and_flop_by_hand():
    assert mxfp4_bytes(192, 64) == 192 * 32 + 192 * 2
    # 3 tokens, 2 experts each, 5 experts active; x [3, 64], h [6, 96]
    up = up_work(SMALL, 3, 5)
    assert up == Work(5 * (192 * 32 + 192 * 2) + 2 * (3 * 64 + 6 * 96), 2 * 6 * 192 * 64)
    down = down_work(SMALL, 3, 5)
    assert down == Work(5 * (64 * 48 + 64 * 3) + 2 * (6 * 96 + 3 * 64), 2 * 6 * 64 * 96)
    grouped = grouped_work(7, 48, 64, 4)
    assert grouped == Work(4 * (48 * 32 + 48 * 2) + 2 * 7 * (64 + 48), 2 * 7 * 48 * 64)


@pytest.mark.parametrize(
    "tokens, experts, floor_us",
    [(1, 4, 17), (2, 8, 34), (4, 14, 60), (8, 22, 94), (16, 31, 132), (32, 32, 136)]
    + [(1024, 32, 255), (2048, 32, 511), (8192, 32, 2043)],
)
def test_floors_are_those_of_the_targets(ceilings, tokens, experts, floor_us):
    """That table counts weights alone; activations add little where bytes are the limit."""
    works = up_work(CONFIG, tokens, experts), down_work(CONFIG, tokens, experts)
    floor = sum(work.floor_us(ceilings) for work in works)
    assert floor_us - 1 < floor < floor_us * 1.01 + 1
    assert floor < TARGETS_US[tokens]


def test_op_work_reads_sizes_from_arguments():
    offs = torch.tensor([0, 3, 3, 4, 4, 6, 6], dtype=torch.int32)
    weight = torch.empty(6, 48, 64)
    x = torch.empty(6, 64)
    assert op_work("grouped_matmul", SMALL, (x, weight, offs)) == grouped_work(6, 48, 64, 3)
    logits = torch.empty(3, 6, dtype=torch.bfloat16)
    x, weight = torch.zeros(5, 64, dtype=torch.bfloat16), torch.zeros(7, 64, dtype=torch.bfloat16)
    assert op_work("linear", SMALL, (x, weight, None)) == Work(2 * (12 * 64 + 35), 2 * 5 * 7 * 64)
    shadow = shadow_of(weight)
    work = Work(2 * 5 * (64 + 7) + shadow.nbytes, 2 * 5 * 7 * 64)
    assert op_work("shortlist", SMALL, (x, weight, shadow, None)) == work
    assert op_work("route", SMALL, (logits, 2)) == Work(36 + 4 * (4 * 6 + 7), 0)


@pytest.mark.usefixtures("hopper_only")
def test_on_a_gpu_ceilings_are_plausible():
    found = measure_ceilings()
    assert 1.5 < found.copy_tb_per_s < 5 and 1.5 < found.read_tb_per_s < 5
    assert 400 < found.matmul_tflop_per_s < 1000
