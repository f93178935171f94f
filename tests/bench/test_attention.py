"""What attention has to read and multiply, counted one pair at a time."""

from dataclasses import replace

import pytest
import torch

from haast.bench.attention import Point, Sweep, finish_row, measure, points, visible_keys, work
from haast.bench.cases import read_config
from haast.bench.steps import decode_step, prompt_step

CPU = torch.device("cpu")


@pytest.mark.parametrize("window", [None, 1, 5, 12, 40])
def test_visible_pairs(window):
    seen = lambda query: min(query + 1, window or query + 1)
    prompt = Point(None, 12, window)
    assert visible_keys(prompt) == sum(seen(query) for query in range(12))
    assert visible_keys(Point(3, 12, window)) == 3 * seen(11)


def test_work_of_gpt_oss():
    """2 kB a key and layer; 64 heads, 2 products of 64 a pair."""
    config = read_config("gpt-oss-20b")
    decode = work(config, Point(64, 4096, None))
    assert decode.nbytes == 64 * 4096 * 2048 + 2 * 64 * 64 * 64 * 2
    held = work(config, Point(64, 4096, None), "float8_e4m3fn")
    assert held.nbytes == 64 * 4096 * 1024 + 2 * 64 * 64 * 64 * 2 and held.flop == decode.flop
    assert decode.flop == 64 * 4096 * 64 * 4 * 64
    assert work(config, Point(64, 4096, 128)).nbytes == 64 * 128 * 2048 + 2 * 64 * 64 * 64 * 2
    assert work(config, Point(None, 8192, None)).flop == pytest.approx(6.6e12 / 12, rel=0.01)


def test_points_are_those_of_both_kinds_of_layer():
    config = read_config("gpt-oss-20b")
    sweep = Sweep(config, (1, 2), (8,), (9,), 3)
    assert points(sweep) == [
        Point(batch, context, window)
        for batch, context in ((1, 8), (2, 8), (None, 9))
        for window in (None, 128)
    ]
    only_full = replace(config, windows=(None,) * config.num_layers)
    assert len(points(replace(sweep, config=only_full))) == 3


def test_rows(ceilings):
    config = read_config("gpt-oss-20b")
    needed = work(config, Point(64, 4096, None))
    row = finish_row(Point(64, 4096, None), needed, 200.0, ceilings)
    assert row["tb_per_s"] == pytest.approx(2.689, abs=1e-3)
    assert row["percent_of_floor"] == pytest.approx(100 * row["tb_per_s"] / 3.1)


def test_a_rehearsal_attends_over_what_the_points_say(rehearsal, small_model, ceilings):
    config = read_config(str(small_model))
    sweep = Sweep(config, (3,), (140,), (6,), 2)
    shapes = []
    for row in measure(sweep, 10_000, ceilings):
        results = rehearsal["attention"]
        shapes.append((row["window"], len(results), tuple(results[0].shape)))
        assert all(result.isfinite().all() for result in results)
    heads = (config.num_heads, config.head_dim)
    assert [shape[2] for shape in shapes] == [(3, *heads)] * 2 + [(6, *heads)] * 2
    assert [shape[1] for shape in shapes] == [1, 1, 1, 1]


def test_steps():
    meta = decode_step(CPU, 3, 300)
    assert meta.kv_lens.tolist() == [300] * 3 and meta.positions.tolist() == [299] * 3
    assert meta.page_table.T.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert meta.slot_mapping.tolist() == [6 * 128 + 43, 7 * 128 + 43, 8 * 128 + 43]
    assert (meta.num_decodes, meta.max_query_len) == (3, 0)
    meta = prompt_step(CPU, 200)
    assert meta.slot_mapping.tolist() == meta.positions.tolist() == [*range(200)]
    assert (meta.num_decodes, meta.max_query_len) == (0, 200)
    assert meta.cu_seqlens_q.tolist() == [0, 200] and meta.page_table.tolist() == [[0, 1]]
