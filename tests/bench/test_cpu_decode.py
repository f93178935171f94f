"""`haast bench cpu-decode`: which steps and seconds count, and the real thing, short."""

import json

import pytest
import torch

from haast.bench import cpu_decode, processor
from haast.bench.cpu_decode import MATRIX, load_subject, measure, row_line
from haast.bench.whole_model import decode_work
from haast.config import EngineConfig

STEP_S, PROBE_S = 20e-3, 1e-3


class Clock:
    """A step takes 20 ms and a product 1; of the first four a second each."""

    def __init__(self):
        self.now = 0.0
        self.calls = 0

    def __call__(self):
        step, call = divmod(self.calls, 4)
        self.calls += 1
        if call % 2:
            usual = STEP_S if call == 1 else PROBE_S
            self.now += 1.0 if step < cpu_decode.SKIPPED else usual
        return self.now


@pytest.fixture(scope="module")
def subject():
    sizes = {"max_batch_size": 2, "max_length": 64, "enable_prefix_caching": False}
    return load_subject(EngineConfig(devices="cpu", **sizes))


def test_a_row_from_made_up_seconds(subject, monkeypatch):
    steps = []
    engine = subject.loaded.engine
    step = engine.step

    def full_ones_only():
        """The clock above counts whole steps; those that give no token come first and last."""
        outputs = step()
        while not outputs and engine.has_work:
            outputs = step()
        steps.append(len(outputs))
        return outputs

    monkeypatch.setattr(engine, "step", full_ones_only)
    (row,) = measure(subject, (1,), 20, Clock())
    assert steps[:20] == [1] * 20
    assert row["steps"] == 20 - cpu_decode.SKIPPED and row["step_us"] == pytest.approx(20_000)
    assert row["tokens_per_s"] == pytest.approx(50)
    rate = 2 * MATRIX**3 / PROBE_S
    assert row["ceilings"] == {"matmul_tflop_per_s": pytest.approx(rate / 1e12)}
    flop = decode_work(subject.config, 1, 16 + 10, 4).flop
    assert row["flop"] == flop and row["floor_us"] == pytest.approx(1e6 * flop / rate)
    assert row["percent_of_floor"] == pytest.approx(100 * flop / rate / STEP_S)


def test_threads_are_given_back(subject):
    torch.set_num_threads(2)
    seen = [torch.get_num_threads() for _ in measure(subject, (1, 2), 16)]
    assert seen == [1, 1] and torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_the_command(tmp_path, capsys):
    from haast.__main__ import main

    out = tmp_path / "results.jsonl"
    with pytest.raises(SystemExit) as ended:
        main(["bench", "cpu-decode", "--batch", "2", "--output", "16", "--out", str(out)])
    assert not ended.value.code
    *lines, last = capsys.readouterr().out.splitlines()
    document = json.loads(last)
    (row,) = document["rows"]
    assert lines == [cpu_decode.HEADING, row_line(row)] and len(lines[0]) == len(lines[1])
    assert out.read_text() == f"{last}\n"
    assert (document["bench"], document["model"]) == ("cpu-decode", "haast-tiny")
    assert (document["input"], document["output"], row["batch"]) == (16, 16, 2)
    assert document["cpu"] == processor.cpu_name() and document["cores"] >= 1
    assert 10 < row["steps"] <= 12 and 0 < row["percent_of_floor"] < 100


def test_the_name_of_a_cpu(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "CPUINFO", path)
    assert processor.cpu_name()
    path.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9575F\n\nmodel name\t: other\n")
    assert processor.cpu_name() == "AMD EPYC 9575F"
