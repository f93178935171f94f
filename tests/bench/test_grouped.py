"""`haast bench grouped`: the baseline's lines, its floor, and a rehearsal on the CPU."""

import json
from dataclasses import replace

import pytest
import torch

from haast.bench.grouped import Grouped, finish, measure, spread_rows
from haast.bench.machine import BenchError
from haast.bench.report import grouped_lines
from haast.bench.timing import Timing

SHAPE = Grouped(P=4096, K=2880, N=256, which="gate_up", experts=32, seed=0, warmup=20, iters=100)
TIMES = {"mxfp4": Timing(20.04, 19.0, 21.0, 12, 100), "bf16": Timing(48.0, 47.0, 50.0, 4, 100)}


def test_the_two_lines_of_the_baseline_come_first(ceilings):
    lines = grouped_lines(finish(SHAPE, 32, TIMES, ceilings))
    assert lines == [
        "MXFP4 grouped matmul: 0.0200 ms/iter",
        "BF16 grouped matmul: 0.0480 ms/iter",
        "BF16 / MXFP4: 2.40",
        "floor: 0.0123 ms; MXFP4 is at 61.5 % of the ceiling",
    ]


def test_the_floor_by_hand(ceilings):
    found = finish(SHAPE, 32, TIMES, ceilings)
    nbytes = 32 * 256 * 2880 * 17 // 32 + 2 * 4096 * (2880 + 256)
    assert found["floor_us"] == pytest.approx(nbytes / 3.1e6)
    assert found["percent_of_floor"] == pytest.approx(100 * nbytes / 3.1e6 / 20.04)
    few = finish(SHAPE, 3, TIMES, ceilings)
    assert found["floor_us"] - few["floor_us"] == pytest.approx(29 * 391_680 / 3.1e6)


def test_the_document_holds_flags_and_figures(ceilings):
    found = json.loads(json.dumps(finish(SHAPE, 32, TIMES, ceilings)))
    assert {"P", "K", "N", "which", "experts", "seed", "warmup", "iters"} < set(found)
    assert found["mxfp4"] == {
        "median_us": 20.04,
        "p10_us": 19.0,
        "p90_us": 21.0,
        "calls": 12,
        "replays": 100,
    }


def test_rows_are_spread_at_random():
    offs = spread_rows(4096, 32, torch.Generator().manual_seed(0))
    assert offs.dtype == torch.int32 and len(offs) == 33
    assert offs[0] == 0 and offs[-1] == 4096
    sizes = offs.diff()
    assert 80 < sizes.min() < 128 < sizes.max() < 180
    assert not torch.equal(offs, spread_rows(4096, 32, torch.Generator().manual_seed(1)))


def test_rehearsal(rehearsal, ceilings):
    shape = Grouped(P=40, K=96, N=32, which="down", experts=5, seed=1, warmup=2, iters=3)
    found = measure(shape, 20_000, ceilings)
    # 3 x 20 kB over 40 x 96 x 2 bytes of x and 5 x 32 x 96 weights of 17/32 and 2 bytes
    assert found["mxfp4"]["calls"] == 4 and found["bf16"]["calls"] == 2
    assert found["ratio"] == 3.0 and found["which"] == "down"
    assert found["card"]["sm_mhz"] == 1980.0
    for ours, theirs in zip(rehearsal["mxfp4"], rehearsal["bf16"], strict=False):
        assert ours.shape == (40, 32)
        assert torch.allclose(ours.float(), theirs.float(), rtol=0.02, atol=0.05)


@pytest.mark.usefixtures("rehearsal")
@pytest.mark.parametrize("change", [{"N": 250}, {"K": 100}])
def test_a_shape_that_cannot_be_packed(ceilings, change):
    with pytest.raises(BenchError, match="N must be a multiple of 16 and K of 32"):
        measure(replace(SHAPE, **change), 1, ceilings)
