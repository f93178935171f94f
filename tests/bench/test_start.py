"""Where the time of a start goes: phases that add up, and a real process on the CPU."""

import json

import pytest
from click.testing import CliRunner

from haast.bench import start, start_process
from haast.bench.start import first_token_s, measure, median_run, table_lines
from haast.bench.start_process import TOKENS, Clock
from haast.cli.bench import command
from haast.config import EngineConfig
from haast.errors import HaastError

SECOND = 1_000_000_000


class FakeTime:
    def __init__(self):
        self.ns = 0

    def __call__(self):
        return self.ns

    def sleep(self, seconds):
        self.ns += int(seconds * SECOND)


def test_phases_add_up_with_what_is_timed_apart():
    time = FakeTime()
    time.sleep(5)
    clock = Clock(2 * SECOND, time)
    clock.end("before")
    read = clock.apart("read", lambda s: time.sleep(s) or "bytes", wait=lambda: time.sleep(0.5))
    time.sleep(1)
    assert read(2) == "bytes"
    read(0.25)
    time.sleep(3)
    clock.end("load")
    clock.end("nothing")
    assert clock.phases == [("before", 3), ("read", 3.25), ("load", 4), ("nothing", 0)]


def test_a_call_that_fails_is_timed_too():
    time = FakeTime()
    clock = Clock(0, time)

    def fail():
        time.sleep(2)
        raise ValueError

    with pytest.raises(ValueError):
        clock.apart("fail", fail)()
    clock.end("rest")
    assert clock.phases == [("fail", 2), ("rest", 0)]


PHASES = [("interpreter", 0.5), ("weights", 3.25), ("first token", 1.0), ("token 2", 0.125)]


def test_table():
    run = {"phases": PHASES, "load_format": "dummy"}
    assert first_token_s(PHASES) == 4.75
    assert [line.split() for line in table_lines(run)] == [
        ["phase", "s", "in", "all"],
        ["interpreter", "0.500", "0.500"],
        ["weights", "3.250", "3.750"],
        ["first", "token", "1.000", "4.750"],
        "process start to first token 4.75 s (asked <= 4 s)".split(),
        ["token", "2", "0.125", "4.875"],
    ]
    assert "(asked <= 10 s)" in table_lines(run | {"load_format": "auto"})[4]


def test_the_median_run():
    runs = [{"first_token_s": seconds} for seconds in (9.0, 3.0, 4.0, 5.0)]
    assert median_run(runs) is runs[2] and median_run(runs[:3]) is runs[2]


def test_a_real_process(tmp_path):
    out = tmp_path / "starts.jsonl"
    options = ["--devices", "cpu", "--runs", "1", "--input", "5", "--out", str(out)]
    outcome = CliRunner().invoke(command, ["start", *options], catch_exceptions=False)
    assert "process start to first token" in outcome.output
    (record,) = map(json.loads, out.read_text().splitlines())
    names = [name for name, _ in record["phases"]]
    assert names[:3] == ["interpreter", "import torch", "other imports"]
    assert names[-TOKENS:] == ["first token", *(f"token {n}" for n in range(2, TOKENS + 1))]
    assert {"tokenizer", "reading files", "weights", "KV cache, engine"} < set(names)
    assert all(seconds >= 0 for _, seconds in record["phases"])
    seconds = dict(map(tuple, record["phases"]))
    assert seconds["import torch"] > 0.1 and seconds["reading files"] > 0
    assert record["first_token_s"] == record["runs_s"][0] < sum(seconds.values())
    assert (record["bench"], record["model"], record["input"]) == ("start", "haast-tiny", 5)


def test_what_cannot_be_loaded_is_one_line(tmp_path):
    wishes = {"devices": "cpu", "model_path": str(tmp_path / "none")}
    asked = {"began_ns": 0, "input": 5, "wishes": wishes}
    with pytest.raises(SystemExit) as end:
        start_process.main(json.dumps(asked))
    assert end.value.code == f"{tmp_path / 'none'}: no such file or folder"


def test_a_process_that_fails_is_told_by_its_last_line(monkeypatch):
    monkeypatch.setattr(start, "MODULE", "haast.nothing")
    with pytest.raises(HaastError, match=r"^the process ended early: .*No module named haast.noth"):
        measure(EngineConfig(), 5)
