"""Benches of a whole model: their floors, and a rehearsal with haast-tiny on the CPU."""

import json
from types import SimpleNamespace

import pytest
import torch

from haast.bench import decode, prefill, throughput, whole_model
from haast.bench.cases import read_config
from haast.bench.machine import BenchError
from haast.bench.whole_model import Subject, decode_work, prefill_work
from haast.config import EngineConfig
from haast.engine.load import prepare
from haast.engine.loading import load

from .rehearsal import CEILINGS

REAL = read_config("gpt-oss-20b")


def test_bytes_of_a_decode_step():
    """A layer: 53.1 MB of projections, 0.18 of the router and 13.22 an expert; the head 1158.3."""
    layer = 2 * 2880 * (5120 + 4096 + 32) + 4 * 3 * 2880 * 2880 * 17 // 32
    kv = 2048 * 12 * (1000 + 128)
    assert decode_work(REAL, 1, 1000, 4).nbytes == 24 * layer + 2 * 201088 * 2880 + kv
    assert decode_work(REAL, 3, 100, 4).nbytes - decode_work(REAL, 1, 100, 4).nbytes == (
        2 * 2048 * 24 * 100
    )
    assert decode_work(REAL, 1, 1000, 4).nbytes - decode_work(REAL, 1, 1000, 4, 1).nbytes == kv // 2
    assert decode_work(REAL, 1, 1000, 4).floor_us(CEILINGS) == pytest.approx(1204, abs=2)


def test_flop_of_a_decode_step():
    token = 24 * (2880 * (5120 + 4096) + 4 * 3 * 2880 * 2880) + 201088 * 2880
    assert decode_work(REAL, 7, 1000, 25).flop == 7 * 2 * token


def test_flop_of_a_prompt():
    """5.80 + 4.64 of projections, 39.14 of experts, 6.60 + 0.21 of scores, in TFLOP."""
    assert prefill_work(REAL, 8192).flop == pytest.approx(56.39e12, rel=1e-3)
    assert prefill_work(REAL, 2).flop - 2 * prefill_work(REAL, 1).flop == 24 * 4 * 4096
    assert prefill_work(REAL, 1).nbytes == decode_work(REAL, 1, 0, 4).nbytes


def test_lengths_are_a_function_of_the_seed():
    sizes = throughput.lengths(400, 3)
    assert sizes == throughput.lengths(400, 3) != throughput.lengths(400, 4)
    assert all(4 <= a <= 2048 and 4 <= b <= 2048 for a, b in sizes)
    prompts = sorted(a for a, _ in sizes)
    assert 120 < prompts[200] < 210 and prompts[-1] > 1000


class FakeEvent:
    """A step takes 2 ms of the GPU's time."""

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        pass

    def elapsed_time(self, end):
        return 2.0


@pytest.fixture
def subject(monkeypatch):
    """haast-tiny on the CPU, as if it were a GPU."""
    monkeypatch.setattr(whole_model, "Event", FakeEvent)
    cuda = SimpleNamespace(
        synchronize=lambda: None,
        max_memory_allocated=lambda: 5,
        is_current_stream_capturing=lambda: False,
    )
    for module in (whole_model, decode, prefill, throughput):
        monkeypatch.setattr(module, "torch", SimpleNamespace(cuda=cuda, stack=torch.stack))
    prepared = prepare(
        EngineConfig(devices="cpu", max_batch_size=3, max_length=64, enable_prefix_caching=False)
    )
    return Subject(prepared.config, prepared.plan, load(prepared, frozenset()), 0.1)


def test_decode(subject):
    rows = list(decode.measure(subject, (1, 3), 5, 8, CEILINGS))
    assert [row["batch"] for row in rows] == [1, 3] and not subject.loaded.engine.has_work
    assert rows[0]["experts"] == 4 and 4 < rows[1]["experts"] <= 12, rows
    for row in rows:
        assert row["context"] == 5 + 4 and row["step_us"] > 0 and row["ttft_s"] > 0
        assert row["tokens_per_s"] == pytest.approx(row["batch"] * 1e6 / row["step_us"])
        assert row["floor_us"] == decode_work(
            subject.config, row["batch"], 9, row["experts"]
        ).floor_us(CEILINGS)
        usual = row | {"step_us": 1e3, "ttft_s": 0.1, "host_us": 90.0}  # of a machine less busy
        assert len(decode.row_line(usual)) == len(decode.HEADING)


def test_decode_tells_what_the_shadow_head_did(subject):
    """References count no rows. A prompt, then steps of one token."""
    subject.loaded.model.cast_shadow()
    subject.loaded.runner.pins = {**subject.loaded.runner.pins, "shortlist": "reference"}
    (row,) = decode.measure(subject, (2,), 5, 8, CEILINGS)
    assert (row["short_steps"], row["rows_a_short_step"]) == (8, 0.0)


def test_prefill(subject, monkeypatch):
    monkeypatch.setattr(prefill, "MANY_TOKENS", 60)
    monkeypatch.setattr(prefill, "MANY_LENGTH", 20)
    rows = list(prefill.measure(subject, (4,), CEILINGS))
    assert [(row["input"], row["requests"]) for row in rows] == [(4, 1), (20, 3)]
    assert rows[1]["flop"] == 3 * prefill_work(subject.config, 20).flop
    assert all(row["ttft_s"] > 0 and 0 <= row["gpu_idle_percent"] <= 100 for row in rows)
    assert len(prefill.row_line(rows[0])) == len(prefill.HEADING)


def test_throughput_loses_nothing(subject):
    row = throughput.measure(subject, [(3, 4), (10, 1), (6, 7), (2, 2)])
    assert row["output_tokens"] == row["expected_output_tokens"] == 14
    assert row["finish_reasons"] == {"length": 4} and row["prompt_tokens"] == 21
    json.dumps(row)


@pytest.mark.parametrize("name", ["decode", "prefill", "throughput", "guesses"])
def test_without_a_hopper_gpu(name):
    from click.testing import CliRunner

    from haast.cli.bench import command

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    outcome = CliRunner().invoke(command, [name, "--model-path", "gpt-oss-20b"])
    assert "this needs an NVIDIA Hopper GPU, but" in str(outcome.exception)


def test_a_batch_that_never_is_full_is_refused():
    subject = SimpleNamespace(plan=SimpleNamespace(max_batch_size=7))
    with pytest.raises(BenchError, match="batch 8 does not fit: .* left for 7 requests"):
        next(decode.measure(subject, (8,), 10, 20, None))
