"""A decode step's kernels from what the profiler exports, and a rehearsal on the CPU."""

import json
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from haast import ops
from haast.bench import trace, whole_model
from haast.bench.cases import read_config
from haast.bench.graph_experts import GraphExperts, graph_experts
from haast.bench.kernel_roles import DecodeShape
from haast.bench.machine import BenchError
from haast.bench.trace import as_step, check_trace, read_events, split, write_trace
from haast.bench.whole_model import Subject, watching
from haast.config import EngineConfig
from haast.engine.load import prepare
from haast.engine.loading import load
from haast.ops.decode_step.cuda_persistent import MOST_STAMPED, PHASES

from .rehearsal import CEILINGS
from .test_whole_model import FakeEvent

REAL = read_config("gpt-oss-20b")
TO_DEVICE, TO_HOST = "Memcpy HtoD (Pinned -> Device)", "Memcpy DtoH (Device -> Pinned)"
ON_DEVICE = "Memcpy DtoD (Device -> Device)"
INDEX = "void at::native::index_elementwise_kernel<128, 4, void>(long)"
KERNELS = ["rms_norm_bf16", "linear_mma_m8", "rope_kv_write", "attention_decode_1"]
KERNELS += ["linear_mma_m8", "linear_mma_m8", "route_small_bf16", "moe_up_mma_8", "moe_down_mma_8"]
STEP = [TO_DEVICE, INDEX, *KERNELS, "linear_mma_m8", "sample_bf16", ON_DEVICE]
BESIDE = [TO_HOST, "CatArrayBatchedCopy"]


def exported(*steps):
    """Steps of (start, us of each of its events); a copy and another kernel come after each."""
    events = [{"ph": "X", "cat": "cuda_runtime", "name": "cudaGraphLaunch", "ts": 0.5, "dur": 9.0}]
    for start, us in steps:
        for index, name in enumerate([*STEP, *BESIDE]):
            kind = "gpu_memcpy" if name.startswith("Memcpy") else "kernel"
            args = {"grid": [132, 1, 1], "correlation": 7, "bytes": 9}
            when = {"ts": start + index * us, "dur": us}
            events.append({"ph": "X", "cat": kind, "name": name, "args": args, **when})
    return {"traceEvents": [{"ph": "M", "name": "process_name"}, *reversed(events)]}


def shape(batch=1):
    return DecodeShape(REAL, batch, 1000, (4,) * 24, 2)


def test_events_are_of_the_gpu_and_in_order():
    found = read_events(exported((100.0, 2.0)))
    assert [event.symbol for event in found] == [*STEP, *BESIDE]
    assert (found[1].start_us, found[1].end_us) == (102.0, 104.0)
    assert found[1].details == {"grid": [132, 1, 1], "bytes": 9}


def test_steps_lie_between_copies():
    """What lies between steps is in none, and no idle time before the next."""
    found = split(read_events(exported((100.0, 2.0), (200.0, 3.0))))
    assert [[event.symbol for event in events] for _, events in found] == [STEP, STEP]
    assert [begin for begin, _ in found] == [100.0, 100 + 2 * (len(STEP) + 2)]
    (head, *rest) = read_events(exported((100.0, 2.0)))
    assert split(rest) == [] and len(split([head, *rest])) == 1
    assert split([head, *rest[:-4]]) == [], "it has not sampled"


def in_turn(*names):
    return [trace.Raw(name, 10.0 * at, 10.0 * at + 1, {}) for at, name in enumerate(names)]


def test_tokens_may_come_to_the_host_when_the_next_step_has_begun():
    found = split(in_turn(*STEP, STEP[0], TO_HOST, *STEP[1:], TO_HOST))
    assert [[event.symbol for event in events] for _, events in found] == [STEP, STEP]


def test_more_than_one_copy_to_the_device_begins_one_step():
    """As of new pages."""
    found = split(in_turn(TO_DEVICE, INDEX, *STEP, TO_HOST, *STEP))
    assert [len(events) for _, events in found] == [2 + len(STEP), len(STEP)]
    assert found[1][0] == 10.0 * (1 + len(STEP)) + 1, "the end of what came last, but to the host"


def test_a_step_s_names_works_and_details():
    ((begin, events),) = split(read_events(exported((100.0, 2.0))))
    step = as_step(begin, events, shape())
    assert [span.name for span in step.spans] == [
        *("copy", "torch", "norm", "qkv", "rope", "attention, window", "o", "router", "route"),
        *("up", "down", "head", "sample", "copy"),
    ]
    assert step.us == 2 * len(STEP)
    assert step.spans[1].symbol == "index_elementwise_kernel" and step.spans[1].work is None
    assert step.spans[3].work.nbytes == 2 * (5120 * 2880 + 5120 + 2880)
    assert step.spans[5].details["layer"] == 0 and "layer" not in step.spans[0].details


class FakeProfiler:
    """Exports ever longer steps, but for the unsteady first ones, which are the longest."""

    def __init__(self, activities):
        assert activities == [torch.profiler.ProfilerActivity.CUDA]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def export_chrome_trace(self, path):
        times = [9.0, 9.0, 9.0, 1.0, 3.0, 2.0, 2.5, 8.0]
        starts = [sum(times[:i]) * len([*STEP, *BESIDE]) for i in range(len(times))]
        with open(path, "w") as file:
            json.dump(exported(*zip(starts, times, strict=True)), file)


@pytest.fixture
def subject(monkeypatch):
    """haast-tiny on the CPU, as if it were a GPU."""
    monkeypatch.setattr(trace, "profile", FakeProfiler)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(trace, "torch", SimpleNamespace(cuda=SimpleNamespace(synchronize=int)))
    prepared = prepare(
        EngineConfig(devices="cpu", max_batch_size=3, max_length=64, enable_prefix_caching=False)
    )
    return Subject(prepared.config, prepared.plan, load(prepared, frozenset()), 0.1)


def test_the_median_step_of_each_batch(subject, tmp_path):
    found = list(trace.trace(subject, (1, 3), 5, 16, GraphExperts()))
    assert [one.shape.batch for one in found] == [1, 3] and not subject.loaded.engine.has_work
    for one in found:
        assert one.num_steps == 5 and one.step.spans[0].own_us == 2.5
        assert one.shape.context == 5 + 4 + 6, "the seventh step after four"
        assert set(one.shape.experts) == {min(4 * one.shape.batch, subject.config.num_experts)}
        row = one.row(CEILINGS)
        assert row["batch"] == one.shape.batch and row["step_us"] == one.step.us
        assert row["experts"] == one.shape.experts[0] and row["gaps_us"] >= 0
        json.dumps(row)
    write_trace(tmp_path / "t.json", found)
    written = json.loads((tmp_path / "t.json").read_text())
    assert {event["pid"] for event in written["traceEvents"]} == {1, 3}
    assert len([e for e in written["traceEvents"] if e["ph"] == "X"]) == 2 * len(STEP)
    assert found[0].title == "decode step, batch 1, 15 keys, 4.0 experts a layer"


class FakePersistent:
    """Two CTAs that end phases 0.1 us apart, each run later ones slower than the one before."""

    def __init__(self):
        self.inputs = []

    def stamped(self, inputs, has_head):
        assert has_head
        self.inputs.append((int(inputs.position), int(inputs.kv_len)))
        ends = torch.arange(6 * len(PHASES) + 2)
        stamps = torch.zeros(2, MOST_STAMPED, len(PHASES), dtype=torch.int64)
        stamps.view(2, -1)[0, : len(ends)] = 10**18 + (90 + len(self.inputs)) * ends
        stamps.view(2, -1)[1, : len(ends)] = 10**18 + (100 + len(self.inputs)) * ends
        return stamps


LONE = [TO_DEVICE, "decode_step", "sample_bf16", ON_DEVICE]


def test_a_lone_request_s_step_has_the_kernel_s_phases(subject, monkeypatch):
    monkeypatch.setattr("tests.bench.test_trace.STEP", LONE)
    subject.loaded.runner._alone = alone = FakePersistent()
    (found,) = trace.trace(subject, (1,), 5, 16, GraphExperts())
    assert alone.inputs == [(16, 17)] * 9, "a step more is in flight when the twelfth token is told"
    spans = found.step.spans
    assert [spans[0].name, *(span.name for span in spans[-2:])] == ["copy", "sample", "copy"]
    inside = [span for span in spans if span.symbol == "decode_step"]
    assert [span.name for span in inside[:9]] == [
        *("x", "qkv", "attention, window", "o", "router", "up", "gated", "down", "x")
    ]
    assert inside[-1].end_us == pytest.approx(spans[-2].start_us) and found.step.us == 4 * 2.5
    scale = 2.5 / (0.105 * 49)  # the median run of nine took longer than the kernel in the step
    assert inside[3].own_us == pytest.approx(0.105 * scale)
    assert len(inside) == 6 * 8 + 2 and inside[8].details == {"layer": 1}
    rows = {row["name"]: row for row in found.row(CEILINGS)["rows"]}
    assert rows["qkv"]["calls"] == rows["x"]["calls"] - 1 == 6
    assert rows["x"]["percent_of_ceiling"] == 0 and rows["down"]["percent_of_ceiling"] > 0


def test_a_step_of_several_kernels_needs_no_phases(subject):
    subject.loaded.runner._alone = FakePersistent()
    found = list(trace.trace(subject, (1, 3), 5, 16, GraphExperts()))
    assert [len(one.step.spans) for one in found] == [len(STEP)] * 2


def test_too_few_full_steps(subject):
    with pytest.raises(BenchError, match="--output is too short for 8 steps of 4 requests"):
        list(trace.trace(subject, (4,), 5, 16, GraphExperts()))
    assert not subject.loaded.engine.has_work


def test_a_profiler_that_missed_a_step(subject, monkeypatch):
    monkeypatch.setattr(trace, "SKIPPED", 3)
    with pytest.raises(BenchError, match="10 steps ran, and the profiler saw results of 8"):
        list(trace.trace(subject, (1,), 5, 16, GraphExperts()))


def test_experts_of_a_captured_step(subject, monkeypatch):
    """Only what a decode leaves while it is captured, of the smallest size that holds the batch."""
    is_capturing = [False]
    monkeypatch.setattr(whole_model, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: is_capturing[0])
    ours = (ops.route, subject.loaded.model.forward)
    with graph_experts(subject.loaded) as experts, watching(subject.loaded):
        engine = subject.loaded.engine
        whole_model.submit(engine, [[1, 2, 3], [4, 5, 6]], 4)
        engine.step()
        engine.step()
        assert experts.snapshot(2) is None
        is_capturing[0] = True
        engine.step()
        found = experts.snapshot(2)
        assert found.shape == (subject.config.num_layers, subject.config.num_experts + 1)
        assert found[:, -1].tolist() == [2 * 4] * subject.config.num_layers
        assert torch.equal(found, experts.snapshot(1)) and experts.snapshot(3) is None
        for _ in whole_model.run(subject.loaded):
            pass
    assert (ops.route, subject.loaded.model.forward) == ours


def test_where_a_trace_may_go(tmp_path):
    check_trace(tmp_path / "t.json")
    with pytest.raises(BenchError, match="must end in .json"):
        check_trace(tmp_path / "t.txt")
    with pytest.raises(BenchError, match="there is no folder"):
        check_trace(tmp_path / "none" / "t.json")


def test_the_command_prints_and_writes(subject, tmp_path, monkeypatch):
    from haast.cli import bench_model

    monkeypatch.setattr(bench_model, "_load", lambda options, **wishes: (subject, CEILINGS))
    monkeypatch.setattr(bench_model, "_document", lambda *args: {"bench": "decode"})
    monkeypatch.setattr("haast.bench.decode.measure", lambda *args: iter(()))
    path, out = tmp_path / "t.json", tmp_path / "r.jsonl"
    options = ["--batch", "1,3", "--input", "5", "--output", "16", "--trace", path, "--out", out]
    outcome = CliRunner().invoke(bench_model.decode, [*map(str, options)], catch_exceptions=False)
    said = outcome.output
    assert said.count("% of the step of") == 2 and f"wrote {path}" in said
    assert len(json.loads(path.read_text())["traceEvents"]) > 2 * len(STEP)
    (record,) = map(json.loads, out.read_text().splitlines())
    assert [row["batch"] for row in record["traces"]] == [1, 3] and record["rows"] == []
    assert record["traces"][0]["rows"][2]["name"] == "norm"
