"""Spans that overlap or leave gaps, as a table and as a Chrome trace."""

import json

import pytest

from haast.bench.rooflines import Work
from haast.bench.timeline import (
    HEADING,
    Span,
    Step,
    in_order,
    median_step,
    places,
    table,
    table_lines,
    trace_events,
    with_phases,
)

from .rehearsal import CEILINGS

MB = 1_000_000


def kernel(name, start, end, nbytes=None, symbol=""):
    work = None if nbytes is None else Work(nbytes, 0)
    return Span(name, 100.0 + start, 100.0 + end, work, symbol or f"{name}_k")


OVERLAPPING = in_order(
    100.0,
    [
        kernel("down", 30, 34, 2 * MB),  # begins before qkv has ended, ends before it too
        kernel("copy", 2, 5),
        kernel("qkv", 12, 40, 31 * MB),
        kernel("norm", 5, 14, 0),  # begins at the copy's end
        kernel("qkv", 43, 53, 31 * MB),
    ],
)
"""Ends at 5, 14, 40, 34, 53 after the begin; idle from 0 to 2 and from 40 to 43"""


def test_times_count_from_the_latest_end_before():
    assert [span.name for span in OVERLAPPING.spans] == ["copy", "norm", "qkv", "down", "qkv"]
    found = places(OVERLAPPING)
    assert [place.us for place in found] == [5, 9, 26, 0, 13]
    assert [place.gap_us for place in found] == [2, 0, 0, 0, 3]
    assert sum(place.us for place in found) == OVERLAPPING.us == 53


def test_overlapping_spans_have_lanes_of_their_own():
    assert [place.lane for place in places(OVERLAPPING)] == [0, 0, 1, 0, 0]
    three = in_order(0.0, [Span("a", 0, 9), Span("b", 1, 4), Span("c", 2, 3), Span("d", 4, 5)])
    assert [place.lane for place in places(three)] == [0, 1, 2, 1]


def test_table():
    found = table(OVERLAPPING, CEILINGS)
    assert found["step_us"] == 53 and found["gaps_us"] == 5
    assert found["gaps_percent"] == pytest.approx(100 * 5 / 53)
    rows = {row["name"]: row for row in found["rows"]}
    assert [*rows] == ["copy", "norm", "qkv", "down"]
    assert rows["qkv"] | {"percent_of_ceiling": 0} == {
        "name": "qkv",
        "symbol": "qkv_k",
        "calls": 2,
        "us": 39,
        "own_us": 38,
        "gap_us": 3,
        "nbytes": 62 * MB,
        "percent_of_ceiling": 0,
    }
    assert rows["qkv"]["percent_of_ceiling"] == pytest.approx(100 * 20 / 39)  # at 3.1 TB/s
    assert rows["copy"]["nbytes"] is rows["copy"]["percent_of_ceiling"] is None
    assert rows["down"]["us"] == 0 and rows["down"]["percent_of_ceiling"] is None
    assert sum(row["us"] for row in found["rows"]) == found["step_us"]
    json.dumps(found)


def test_flop_count_where_they_are_more_than_bytes():
    step = in_order(0.0, [Span("a", 0.0, 10.0, Work(31, 798 * MB * 5))])
    assert table(step, CEILINGS)["rows"][0]["percent_of_ceiling"] == pytest.approx(50)


def test_symbols_and_names_have_rows_of_their_own():
    step = in_order(0.0, [Span("a", 0, 1, symbol="x"), Span("a", 1, 2, symbol="y")])
    step = in_order(0.0, [*step.spans, Span("b", 2, 3, symbol="y")])
    assert [(row["name"], row["symbol"]) for row in table(step, CEILINGS)["rows"]] == [
        ("a", "x"),
        ("a", "y"),
        ("b", "y"),
    ]


def test_table_lines():
    lines = table_lines(table(OVERLAPPING, CEILINGS))
    assert lines[0] == HEADING and len(lines) == 6
    assert all(len(line) == len(HEADING) for line in lines[:-1])
    assert lines[1].split() == ["copy", "copy_k", "1", "5.0", "3.0", "-", "-", "2.0"]
    assert lines[3].split() == ["qkv", "qkv_k", "2", "39.0", "38.0", "62.00", "51.3", "3.0"]
    assert lines[-1] == "sum of gaps 5.0 us = 9.4 % of the step of 53.0 us (asked <= 8 %)"


def test_the_median_step_is_one_that_ran():
    steps = [
        Step(10.0 * i, (Span("a", 10.0 * i, 10.0 * i + us),)) for i, us in enumerate((7, 3, 9))
    ]
    assert median_step(steps) is steps[0]
    assert median_step([*steps, Step(50.0, (Span("a", 51.0, 54.0),))]).us == 4
    assert median_step(steps[:1]) is steps[0]


def test_a_trace_is_chrome_s():
    events = trace_events(OVERLAPPING, 8, "batch 8")
    assert json.loads(json.dumps(events)) == events
    said = [event for event in events if event["ph"] == "M"]
    assert [(e["name"], e["tid"], e["args"]["name"]) for e in said] == [
        ("process_name", 0, "batch 8"),
        ("thread_name", 0, "lane 0"),
        ("thread_name", 1, "lane 1"),
    ]
    spans = [event for event in events if event["ph"] == "X"]
    assert len(spans) == 5 and {event["pid"] for event in events} == {8}
    assert [(e["name"], e["ts"], e["dur"], e["tid"]) for e in spans][2] == ("qkv", 12, 28, 1)
    assert spans[2]["args"] == {"kernel": "qkv_k", "us": 26, "gap_us": 0, "nbytes": 31 * MB}
    assert spans[0]["args"] == {"kernel": "copy_k", "us": 5, "gap_us": 2}
    for lane in (0, 1):  # in a row nothing overlaps
        row = [(e["ts"], e["ts"] + e["dur"]) for e in spans if e["tid"] == lane]
        assert all(end <= start for (_, end), (start, _) in zip(row, row[1:], strict=False))


def test_phases_of_one_kernel_take_its_place():
    step = in_order(
        100.0,
        [kernel("copy", 0, 4), kernel("step", 5, 45, symbol="whole_step"), kernel("copy", 45, 46)],
    )
    told = [
        Span("qkv 0", 1.0, 11.0, Work(31 * MB, 0)),
        Span("attention 0", 10.0, 18.0, Work(2 * MB, 0), details={"layer": 0}),
        Span("head", 21.0, 40.0, Work(9, 0)),
    ]
    found = with_phases(step, "whole_step", told)
    assert [(s.name, s.start_us - 100, s.end_us - 100, s.symbol) for s in found.spans] == [
        ("copy", 0, 4, "copy_k"),
        ("qkv 0", 6, 16, "whole_step"),
        ("attention 0", 15, 23, "whole_step"),
        ("head", 26, 45, "whole_step"),
        ("copy", 45, 46, "copy_k"),
    ]
    rows = {row["name"]: row for row in table(found, CEILINGS)["rows"]}
    assert (rows["qkv 0"]["us"], rows["qkv 0"]["gap_us"], rows["head"]["gap_us"]) == (12, 2, 3)
    assert rows["qkv 0"]["nbytes"] == 31 * MB and found.us == step.us == 46
    assert found.spans[2].details == {"layer": 0}
    with pytest.raises(ValueError, match="a step with one other is needed; this one has 0"):
        with_phases(step, "other", told)
