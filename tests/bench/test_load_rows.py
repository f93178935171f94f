"""Figures of a level of load, and the table and the picture that show them."""

from xml.etree import ElementTree

import pytest

from haast.bench.load.about import first_gpu
from haast.bench.load.level import Level, Outcome
from haast.bench.load.plot import draw
from haast.bench.load.reading import PromptDetails, Usage
from haast.bench.load.rows import HEADING, row, row_line, spread
from haast.bench.load.sweep import Sweep

GOOD = [
    Outcome(10.0, 11.0, [10.2, 10.4, 10.9], Usage(7, 5, PromptDetails(2))),
    Outcome(10.5, 13.5, [11.5, 12.5], Usage(9, 3)),
]
BAD = Outcome(10.0, 99.0, [50.0, 90.0], Usage(1000, 1000), "429: busy")


def test_only_requests_that_came_through_count():
    found = row(Level(4, [*GOOD, BAD, BAD], wall_s=4.0, busy_s=0.5))
    assert (found["concurrency"], found["requests"], found["errors"]) == (4, 4, {"429: busy": 2})
    assert (found["output_tokens"], found["prompt_tokens"], found["cached_tokens"]) == (8, 16, 2)
    assert (found["events"], found["tokens_per_event"]) == (5, 1.6)
    assert (found["output_tokens_per_s"], found["requests_per_s"]) == (2.0, 0.5)
    assert found["client_cpu_percent"] == 12.5
    assert found["ttft_s"]["mean"] == pytest.approx(0.6) and found["ttft_s"]["max"] == 1.0
    assert found["itl_s"]["p50"] == pytest.approx(0.5)  # of 0.2, 0.5, 1.0
    assert found["tpot_s"]["mean"] == pytest.approx((0.7 / 4 + 1.0 / 2) / 2)
    assert found["e2e_s"]["mean"] == 2.0 and found["e2e_s"]["max"] == 3.0


def test_percentiles_are_interpolated():
    found = spread([float(number) for number in range(101)])
    assert found == {"mean": 50.0, "max": 100.0, "p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert spread([3.0]) == {"mean": 3.0, "max": 3.0, "p50": 3.0, "p90": 3.0, "p99": 3.0}
    assert spread([]) is None


def test_lines_stand_under_the_heading():
    full = row(Level(256, GOOD, 4.0, 0.5))
    empty = row(Level(1, [BAD], 4.0, 0.5))
    width = len(HEADING.splitlines()[1])
    assert [len(row_line(found)) for found in (full, empty)] == [width, width]
    words = row_line(full).split()
    assert words[:5] == ["256", "2", "0", "2", "600.0"]
    assert (
        words[7] == "566.67"
        and words[10:12] == ["337.50", "2.00"]
        and words[-2:]
        == [
            "1.60",
            "12.5",
        ]
    )
    assert row_line(empty).split() == ["1", "1", "1", "0", *["-"] * 11, "12.5"]


def test_a_picture_of_levels_even_of_one_where_nothing_counts(tmp_path):
    rows = [row(Level(8, GOOD, 4.0, 0.5)), row(Level(64, [BAD], 4.0, 0.5))]
    result = {"model": "m", "input_len": 5, "output_len": 6, "gpu": "G", "rows": rows}
    draw(result).savefig(tmp_path / "x.svg")
    ElementTree.parse(tmp_path / "x.svg")


def test_how_many_requests_a_level_has():
    usual = Sweep((1, 64))
    assert [usual.requests_at(n) for n in (1, 64)] == [8, 256]
    assert [usual.warmup_at(n) for n in (1, 64)] == [1, 64]
    other = Sweep((1,), num_requests=3, num_warmup=0)
    assert (other.requests_at(64), other.warmup_at(64)) == (3, 0)


def test_the_first_gpu():
    assert first_gpu("NVIDIA H100, 580.1\nNVIDIA A, 1") == ("NVIDIA H100", "580.1")
    assert first_gpu(None) == first_gpu("") == (None, None)
