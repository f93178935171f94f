"""Which numbers of a result are compared, by name."""

import json
import math
from pathlib import Path

import pytest

from haast.baseline.errors import UnmeasuredError
from haast.baseline.metrics import Metric, metrics_of
from tests.baseline.made_up import decode, prefill

RESULTS = Path(__file__).parents[2] / "bench/results"


def oldest(bench):
    """Results are appended: the first line stays."""
    return json.loads((RESULTS / f"{bench}.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize(
    "bench, name, unit",
    [
        ("grouped", "grouped_gate_up", "%"),
        ("moe", "moe_t64", "%"),
        ("decode", "decode_b1", "%"),
        ("prefill", "prefill_1024", "%"),
        ("prefill", "prefill_64x1024", "%"),
        ("attention", "attention_b1_1024_full", "%"),
        ("attention", "attention_b1_1024_w128", "%"),
        ("throughput", "throughput", "tokens/s"),
        ("serve", "serve_c1", "tokens/s"),
    ],
)
def test_every_bench_of_ours_is_read(bench, name, unit):
    result = oldest(bench)
    found = metrics_of(result)
    assert found[name].unit == unit and found[name].name == name
    rows = result.get("rows", [result])
    assert len(found) == len(rows)
    values = {row.get("percent_of_floor", row.get("output_tokens_per_s")) for row in rows}
    assert {metric.value for metric in found.values()} == values


def test_figures_are_for_people():
    assert metrics_of(decode(b1=59.5))["decode_b1"].figure == "476 tokens/s"
    assert metrics_of(prefill(60.0))["prefill_1024"] == Metric("prefill_1024", 60.0, "%", "15.0 ms")
    skewed = oldest("moe") | {"routing": "skewed"}
    assert "moe_skewed_t64" in metrics_of(skewed)
    ops = {"bench": "ops", "rows": [{"op": "route", "tokens": 64, "us": 4.0}]}
    assert metrics_of(ops)["route_t64"] == Metric("route_t64", 250_000.0, "calls/s", "4.00 us")


@pytest.mark.parametrize(
    "result, text",
    [
        ({}, "no bench 'None' has numbers"),
        ({"bench": "generate"}, "no bench 'generate' has numbers"),
        ({"bench": "decode"}, r"bench decode: not what it prints \(KeyError\('rows'\)\)"),
        ({"bench": "decode", "rows": [{"batch": 1}]}, "not what it prints"),
        (decode(b1=math.nan), "decode_b1 is nan"),
        (decode(b64=0.0), "decode_b64 is 0.0"),
        (decode(b64=-3.0), "decode_b64 is -3.0"),
        ({"bench": "decode", "rows": None}, "not what it prints"),
    ],
)
def test_what_is_no_result(result, text):
    with pytest.raises(UnmeasuredError, match=text):
        metrics_of(result)
