"""Which steps are captured and replayed; CUDA is played by a recorder of calls."""

from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch

from haast.config import SpeculativeConfig
from haast.engine import runner as runner_module
from haast.engine.graphs import DECODE_SIZES, PROMPT_SIZES, StepGraphs
from haast.engine.inputs import Layout

from .harness import FREE
from .small_model import ask, expected, load_small, outputs, prompt_of, run


class FakeGraph:
    """Replays nothing; tells `log` of every call."""

    log = []

    def __init__(self):
        self.log.append("graph")

    def capture_begin(self, **options):
        self.log.append(("begin", options))

    def capture_end(self):
        self.log.append("end")

    def replay(self):
        self.log.append("replay")


@pytest.fixture
def log(monkeypatch):
    """What was asked of CUDA, in order."""
    calls = []

    @contextmanager
    def stream(which):
        calls.append(("stream", which))
        yield
        calls.append("stream left")

    monkeypatch.setattr(FakeGraph, "log", calls)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "Stream", lambda: "side")
    monkeypatch.setattr(torch.cuda, "stream", stream)
    return calls


def make(log, max_batch_size=40, max_batch_input_tokens=200):
    """Graphs of a function that tells of its calls and gives a new tensor each time."""

    def function(layout, num_decodes):
        log.append((layout, num_decodes))
        return torch.full((layout.num_samples,), float(len(log)))

    return StepGraphs(function, max_batch_size, max_batch_input_tokens)


def test_first_eager_then_captured_then_replayed(log):
    graphs, layout = make(log), Layout(8, 8, 8)
    eager = graphs.run(layout, 8)
    assert log == [(layout, 8)]
    log.clear()
    captured = graphs.run(layout, 8)
    assert log == [
        "graph",
        ("stream", "side"),
        ("begin", {"pool": "pool", "capture_error_mode": "thread_local"}),
        (layout, 8),
        "end",
        "stream left",
        "replay",
    ]
    log.clear()
    assert graphs.run(layout, 8) is captured is graphs.run(layout, 8)
    assert log == ["replay", "replay"] and captured is not eager


def test_each_layout_has_its_own_graph(log):
    graphs = make(log)
    layouts = [(Layout(4, 4, 4), 4), (Layout(8, 8, 8), 8), (Layout(16, 1, 1), 0)]
    for call in layouts:
        graphs.run(*call)
    assert log == layouts
    results = [graphs.run(*call) for call in layouts]
    again = [graphs.run(*call) for call in reversed(layouts)]
    assert all(a is b for a, b in zip(results, reversed(again), strict=True))
    assert len({id(result) for result in results}) == 3 and log.count("graph") == 3


def test_a_capture_that_fails_is_ended_and_tried_again(log):
    """The device must not be left capturing."""
    fails = [False, True, False]

    def function(layout, num_decodes):
        log.append("function")
        if fails.pop(0):
            raise RuntimeError("not capturable")
        return torch.zeros(1)

    graphs, layout = StepGraphs(function, 4, 16), Layout(4, 4, 4)
    graphs.run(layout, 4)
    with pytest.raises(RuntimeError, match="not capturable"):
        graphs.run(layout, 4)
    assert log[-1] == "end"
    log.clear()
    graphs.run(layout, 4)
    assert log.count("function") == 1 and log[-1] == "replay"


@pytest.mark.parametrize("max_batch_size", [1, 3, 8, 40, 512, 600])
def test_decodes_take_the_smallest_size_with_room(log, max_batch_size):
    graphs = make(log, max_batch_size, 8192)
    sizes = {size for size in DECODE_SIZES if size <= max_batch_size} | {max_batch_size}
    for count in range(1, max_batch_size + 1):
        size = min(size for size in sizes if size >= count)
        assert graphs.layout_for(count, count, count) == Layout(size, size, size), count


@pytest.mark.parametrize("max_tokens", [16, 100, 200, 8192])
def test_a_prompt_read_alone_takes_the_smallest_length_with_room(log, max_tokens):
    graphs = make(log, 4, max_tokens)
    sizes = [size for size in PROMPT_SIZES if size <= max_tokens]
    for count in range(2, min(max_tokens, 700) + 1):
        found = graphs.layout_for(1, 0, count)
        fitting = [size for size in sizes if size >= count]
        assert found == (Layout(fitting[0], 1, 1) if fitting else None), count


@pytest.mark.parametrize("requests, decodes", [(2, 0), (2, 1), (5, 4)])
def test_other_steps_have_no_graph(log, requests, decodes):
    assert make(log).layout_for(requests, decodes, 20) is None


def test_sizes_rise_in_steps_that_waste_little():
    for sizes in (DECODE_SIZES, PROMPT_SIZES):
        assert all(a < b <= 2 * a for a, b in pairwise(sizes))


class Unreplayed(StepGraphs):
    """Computes each time what a graph would: its layout, padding and all."""

    def run(self, layout, num_decodes):
        self.captured[layout] = None
        return self._function(layout, num_decodes)


@pytest.fixture
def padded(log, monkeypatch, parameters):
    """The engine over the small network, every step of which runs in the layout of its graph."""
    monkeypatch.setattr(runner_module, "StepGraphs", Unreplayed)
    return lambda **plan: load_small(parameters, has_graphs=True, **plan)


def test_padding_changes_nothing(padded, parameters):
    """Batches of 5 to 7 decodes run as 8, and prompts alone as the next longer ones."""
    sizes = [(1, 12), (9, 8), (130, 10), (40, 1), (127, 6), (20, 20), (65, 9)]
    asks = [ask(prompt_of(size), new) for size, new in sizes]
    asks[1] = ask(prompt_of(9), 8, temperature=1.3, seed=5, frequency_penalty=0.5, logprobs=2)
    alone = [expected(parameters, one).output_ids for one in asks]
    loaded = padded(max_batch_size=7, max_batch_input_tokens=150)
    assert outputs(run(loaded, asks)) == alone
    assert Layout(7, 7, 7) in loaded.runner._graphs.captured
    loaded = padded(max_batch_size=20, max_batch_input_tokens=150)
    assert outputs(run(loaded, asks)) == alone
    assert {Layout(8, 8, 8), Layout(16, 1, 1)} & {*loaded.runner._graphs.captured}
    for one, output in zip(asks, alone, strict=True):
        assert outputs(run(padded(), [one])) == [output]


def test_padding_with_few_pages_and_chunks(padded, parameters):
    asks = [ask(prompt_of(size), 60) for size in (40, 60, 50)]
    loaded = padded(num_pages=5, max_batch_input_tokens=33)
    requests = run(loaded, asks)
    assert any(request.num_preemptions for request in requests)
    assert outputs(requests) == [expected(parameters, one).output_ids for one in asks]


def test_guesses_are_rows_of_larger_batches(padded, parameters):
    """Two requests and six guesses: batches up to eight."""
    few = {"logit_bias": {7: 30.0, 8: 30.3}}
    asks = [ask(prompt_of(20), 30, **few), ask(prompt_of(30), 30, temperature=1.0, **few)]
    wish = SpeculativeConfig("ngram", 4, 1, 3)
    loaded = padded(max_batch_size=2, speculative_config=wish, max_drafts=6)
    loaded.engine.drafter.costs = FREE
    assert outputs(run(loaded, asks)) == [expected(parameters, one).output_ids for one in asks]
    sizes = {layout.num_requests for layout in loaded.runner._graphs.captured}
    assert sizes <= {1, 2, 4, 8} and 8 in sizes
    assert loaded.engine.drafter.counts.accepted > 10


def test_a_failure_amid_a_capture_ends_its_requests(log, monkeypatch, parameters):
    """And later ones run eagerly or are captured anew."""
    loaded = load_small(parameters, has_graphs=True, max_batch_size=2)
    one, forward, calls = ask([1, 2, 3], 6), loaded.model.forward, []

    def failing(*arguments):
        calls.append(None)
        if len(calls) == 3:
            raise RuntimeError("not capturable")
        return forward(*arguments)

    monkeypatch.setattr(loaded.model, "forward", failing)
    (request,) = run(loaded, [one])
    assert request.error == "RuntimeError: not capturable" and "end" in log
