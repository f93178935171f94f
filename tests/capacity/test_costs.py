"""Seconds of steps: what was measured is what comes out; the rest by hand."""

import pytest

from haast.bench.cases import read_config
from haast.capacity.costs import ALL_REDUCE_S, NVLINK_B_PER_S, Costs
from haast.capacity.curves import Curves, interpolated, measured
from haast.capacity.memory import room
from haast.config import ConfigError
from haast.engine.footprint import parameter_bytes

SMALL, LARGE = read_config("gpt-oss-20b"), read_config("gpt-oss-120b")


@pytest.fixture(params=["H100", "H200"])
def curves(request) -> Curves:
    return measured().curves[request.param, "gpt-oss-20b"]


def test_what_was_measured_comes_out(curves):
    costs = Costs(curves, SMALL, SMALL)
    for batch, step_s in curves.decode_s:
        assert costs.step_s(batch, curves.context, 0, 0) == pytest.approx(step_s)
    for tokens, ttft_s in curves.prefill_s[:2]:
        assert costs.step_s(0, 0, tokens, tokens / 2) == pytest.approx(ttft_s)
    tokens, ttft_s = curves.prefill_s[2]
    assert costs.step_s(0, 0, tokens, tokens / 2) == pytest.approx(ttft_s, rel=0.06)


def test_a_step_of_both_is_no_cheaper_than_either(curves):
    costs = Costs(curves, SMALL, SMALL)
    both = costs.step_s(64, 1088, 1024, 512)
    assert both == pytest.approx(costs.decode_s(64, 1088) + 1024 * curves.token_s)
    assert costs.step_s(1, 1088, 128, 64) == costs.prefill_s(128, 64) > costs.decode_s(1, 1088)


def test_longer_contexts_cost_the_bytes_of_their_keys(curves):
    costs = Costs(curves, SMALL, SMALL)
    more_s = costs.decode_s(64, 5088) - costs.decode_s(64, 1088)
    assert more_s == pytest.approx(64 * 4000 * 24576 / (0.8 * curves.read_b_per_s))
    halves = Costs(curves, SMALL, SMALL, 2)
    assert halves.decode_s(64, 5088) - halves.decode_s(64, 1088) == pytest.approx(more_s / 2)


def test_two_gpus_halve_all_but_latency_and_pass_two_sums_a_layer(curves):
    one, two = Costs(curves, SMALL, SMALL), Costs(curves, SMALL, SMALL, 2)
    latency_s = 24 * one.layer_s
    passed_s = 48 * (ALL_REDUCE_S + 64 * 5760 / NVLINK_B_PER_S)
    expected_s = (one.decode_s(64, 1088) - latency_s) / 2 + latency_s + passed_s
    assert two.decode_s(64, 1088) == pytest.approx(expected_s)
    assert 5e-6 < one.layer_s < 50e-6 and one.passed_s(64) == 0


def test_the_large_model_takes_its_bytes_longer(curves):
    """At batch 1 it reads 107 MB a layer, 36 times, and the head; the small one so 24 times."""
    layers = 53_084_160 + 2 * 2880 * 128 + 4 * 13_219_200
    costs = Costs(curves, SMALL, LARGE)
    keys = 18 * 2048 * (1088 + 128)
    read_s = (36 * layers + 2 * 201088 * 2880 + keys) / curves.read_b_per_s
    assert costs.decode_s(1, 1088) == pytest.approx(36 * costs.layer_s + read_s, rel=0.01)
    assert 1.4 < costs.prefill_s(8192, 512) / Costs(curves, SMALL, SMALL).prefill_s(8192, 512) < 1.6


def test_interpolation():
    points = [(1, 10.0), (3, 20.0), (4, 50.0)]
    assert [interpolated(points, x) for x in (1, 2, 3, 3.5, 5, 0)] == [10, 15, 20, 35, 80, 5]


def test_room():
    alone, halves = room(LARGE, "H200", 1, 4096), room(LARGE, "H200", 2, 4096)
    assert alone.weight_bytes == parameter_bytes(LARGE, "mxfp4", is_swizzled=True)
    assert halves.weight_bytes == alone.weight_bytes // 2 and alone.weight_bytes < 66e9
    assert room(SMALL, "H100", 1, 4096).limits.batch == 256
    assert room(LARGE, "H100", 1, 1500).limits.kv_tokens < halves.limits.kv_tokens
    with pytest.raises(ConfigError, match="131073 tokens exceed the model's 131072"):
        room(SMALL, "H100", 1, 131073)
