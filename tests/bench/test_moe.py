"""`haast bench moe`: what follows from timings, the table, and a rehearsal on the CPU."""

import json

import pytest
import torch

from haast.bench.cases import Draw, read_config
from haast.bench.layers import Copies, copies_for, make_layers
from haast.bench.moe import TARGETS_US, VARIANTS, Sweep, finish_row, measure
from haast.bench.report import heading, points, row_line
from haast.bench.rival import check_rival
from haast.bench.timing import Timing
from haast.errors import HaastError

CONFIG = read_config("gpt-oss-20b")


def sweep(**changes) -> Sweep:
    fields = {
        "model": "gpt-oss-20b",
        "config": CONFIG,
        "tokens": (1, 64),
        "popularity": "uniform",
        "replays": 50,
        "with_rival": False,
    }
    return Sweep(**fields | changes)


def timings(**us):
    return {name: Timing(value, value - 1, value + 1, 8, 50) for name, value in us.items()}


def test_a_row_by_hand(ceilings):
    times = timings(up=14.0, down=8.0, route=2.0, bf16_up=70.0, bf16_down=40.0)
    row = finish_row(sweep(), 1, 4, times, ceilings)
    nbytes = 4 * (5760 + 2880) * 2880 * 17 // 32 + 2 * (2880 + 4 * 2880) * 2
    assert (row["tokens"], row["rows"], row["active_experts"]) == (1, 4, 4)
    assert row["nbytes"] == nbytes and row["flop"] == 2 * 4 * (5760 + 2880) * 2880
    assert row["sum_us"] == 22.0 and row["bf16_us"] == 110.0 and row["bf16_ratio"] == 5.0
    assert row["floor_us"] == pytest.approx(nbytes / 3.1e6)
    assert row["percent_of_floor"] == pytest.approx(100 * nbytes / 3.1e6 / 22)
    assert row["tb_per_s"] == pytest.approx(nbytes / 22e6)
    assert row["tflop_per_s"] == pytest.approx(row["flop"] / 22e6)
    assert row["target_us"] == 22 and row["rival_us"] is None
    assert row["up"]["p10_us"] == 13.0 and row["rival_up"] is None
    assert set(VARIANTS) < set(row)


def test_the_floor_adds_two_matmuls_each_with_its_own_limit(ceilings):
    row = finish_row(sweep(), 8192, 32, timings(up=1500.0, down=800.0, route=9.0), ceilings)
    assert row["floor_us"] == pytest.approx(2 * 32768 * 8640 * 2880 / 798e6)
    assert row["bf16_ratio"] is None and row["bf16_us"] is None


def test_targets_are_for_one_model_and_routing():
    assert sweep().target_us(64) == 158 and sweep().target_us(3) is None
    assert sweep(popularity="skewed").target_us(64) is None
    assert sweep(model="gpt-oss-120b").target_us(64) is None
    assert list(TARGETS_US) == [2**i for i in range(14)]
    assert sorted(TARGETS_US.values()) == list(TARGETS_US.values())


def test_columns_line_up_and_missing_figures_are_dashes(ceilings):
    row = finish_row(sweep(), 64, 32, timings(up=90.0, down=60.0, route=2.5), ceilings)
    for with_rival in (False, True):
        assert len(heading(with_rival)) == len(row_line(row, with_rival))
    line = row_line(row, True).split()
    assert line[:7] == ["64", "256", "32", "90.0", "60.0", "150.0", "158"]
    assert line[-6:] == ["-"] * 6
    with_rival = row | {"rival_up": {"median_us": 129.8}}
    assert row_line(with_rival, True).split()[-3:] == ["129.8", "-", "-"]


def test_points_are_those_that_were_measured(ceilings):
    rows = [finish_row(sweep(), 64, 32, timings(up=90.0, down=60.0, route=2.5), ceilings)]
    found = points(rows)
    assert list(found) == ["haast MXFP4"]
    (point,) = found["haast MXFP4"]
    assert point.label == "64" and point.tflop_per_s == pytest.approx(rows[0]["tflop_per_s"])
    assert point.flop_per_byte == pytest.approx(rows[0]["flop"] / rows[0]["nbytes"])


def test_copies_miss_the_l2_even_with_the_fewest_experts():
    l2 = 50 << 20
    copies = copies_for(CONFIG, [32, 4, 31], l2, 80 << 30)
    # 4 experts' down projections are 17.6 MB in MXFP4 and 66.4 MB in BF16
    assert copies == Copies(9, 3)
    assert copies_for(CONFIG, [32], l2, 80 << 30) == Copies(2, 1)
    assert copies_for(CONFIG, [4], l2, 8 << 30) == Copies(9, 0)


def test_layers_are_in_the_row_order_that_each_op_reads(small_model):
    config, draw = read_config(str(small_model)), Draw.on(torch.device("cpu"))
    first, second = make_layers(config, Copies(mxfp4=2, bf16=1), draw, with_rival=False)
    assert first.up.layout.paired and not first.down.layout.paired
    assert first.bf16 is not None and second.bf16 is None
    for packed, wide in zip((first.up, first.down), first.bf16, strict=True):
        assert torch.equal(packed.dequantize(torch.bfloat16), wide)


@pytest.mark.parametrize("popularity", ["uniform", "skewed"])
def test_rehearsal(rehearsal, ceilings, small_model, popularity):
    what = sweep(config=read_config(str(small_model)), tokens=(1, 9), popularity=popularity)
    rows = list(measure(what, 5_000, ceilings))
    assert json.loads(json.dumps(rows)) == rows
    assert [row["tokens"] for row in rows] == [1, 9] and rows[1]["rows"] == 18
    assert rows[0]["active_experts"] == 2 and rows[0]["up"]["calls"] == 2
    assert rows[0]["sum_us"] == 32.0 and rows[0]["bf16_ratio"] == 2.5
    assert {out.shape for out in rehearsal["up"]} == {(18, 96)}
    assert {out.shape for out in rehearsal["down"]} == {(9, 64)}
    assert {out.shape for out in rehearsal["bf16_up"]} == {(18, 192)}
    assert not any(torch.equal(rehearsal["up"][0], other) for other in rehearsal["up"][1:])


def test_without_memory_for_bf16_the_rest_is_measured(
    rehearsal, ceilings, small_model, monkeypatch
):
    monkeypatch.setattr("haast.bench.moe.free_bytes", lambda: 1)
    what = sweep(config=read_config(str(small_model)), tokens=(4,))
    (row,) = measure(what, 5_000, ceilings)
    assert row["bf16_up"] is None and row["bf16_ratio"] is None and row["sum_us"] == 32.0


def test_a_rival_that_is_not_there():
    with pytest.raises(HaastError) as error:
        check_rival()
    assert str(error.value) == (
        "triton_kernels cannot be imported (No module named 'triton_kernels'); put the folder "
        "that holds it on PYTHONPATH, for example third_party of vLLM 0.25.1"
    )
