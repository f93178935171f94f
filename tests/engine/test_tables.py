"""Rows of requests on the device and the pages in them, against what the requests hold."""

from collections import Counter
from random import Random

import numpy as np
import pytest

from haast.engine.inputs import Layout, pack
from haast.engine.request import Request, SamplingParams
from haast.engine.step import Step
from haast.engine.tables import Tables

from . import harness, slow_inputs
from .oracle_runner import PAGE_SIZE, VOCAB, OracleRunner, demand
from .test_engine_traces import MAX_LENGTH, run_trace

UNKNOWN = -1


class Device:
    """Tables, and the array on the device that they tell to change."""

    def __init__(self, num_rows=3, max_pages=MAX_LENGTH // PAGE_SIZE):
        self.tables = Tables(num_rows, max_pages, PAGE_SIZE, VOCAB)
        self.pages = np.full((2, num_rows, max_pages), UNKNOWN, np.int32)
        self.num_sent = 0

    def take(self, step):
        """Rows of a step, and who is new, with new pages taken over."""
        rows, fresh = self.tables.rows(step)
        changes = self.tables.new_pages(step, rows)
        self.num_sent = 0 if changes is None else changes.shape[1]
        if changes is not None:
            at, pages = changes
            assert len(set(at.tolist())) == len(at), "an entry is written twice"
            self.pages.reshape(-1)[at] = pages
        return rows, fresh

    def row(self, request):
        """What the device knows of a request: entries of full, and of sliding, pages."""
        return self.pages[:, self.tables.row(request)].tolist()


def request(num_prompt=10, num_output=0, window=99, seed=0) -> Request:
    return slow_inputs.random_request(Random(seed), PAGE_SIZE, num_prompt, num_output, window)


def chunks(*rows) -> Step:
    """A step of (request, start, count)."""
    step = Step()
    for row in rows:
        slow_inputs.add_row(step, *row, samples=True)
    return step


def decodes(*requests) -> Step:
    """A step of their last tokens."""
    step = chunks(*((request, request.num_tokens - 1, 1) for request in requests))
    step.input_ids = [request.output_ids[-1] for request in requests]
    step.input_rows = [-1] * len(requests)
    return step


def test_each_request_has_a_row_and_leaves_it_to_the_next():
    device = Device()
    first, second, third, fourth = (request(seed=seed) for seed in range(4))
    rows, fresh = device.take(chunks((first, 0, 10), (second, 0, 10), (third, 0, 4)))
    assert sorted(rows) == [0, 1, 2] and fresh == [first, second, third]
    rows_of = dict(zip([first, second, third], rows, strict=True))
    assert device.take(chunks((third, 4, 6))) == ([rows_of[third]], [])
    device.tables.leave(second)
    device.tables.leave(second)
    device.tables.leave(request())
    assert device.take(chunks((fourth, 0, 10), (third, 8, 2))) == (
        [rows_of[second], rows_of[third]],
        [fourth],
    )
    assert device.row(fourth)[0][: len(fourth.pages)] == fourth.pages


def test_pages_are_sent_once():
    device, one = Device(), request(num_prompt=10)
    one.pages, one.window_pages = [7, 3, 9], [5]
    device.take(chunks((one, 0, 4)))
    assert device.row(one)[0][:4] == [7, 3, 9, UNKNOWN]
    assert device.row(one)[1][:2] == [5, UNKNOWN] and device.num_sent == 4
    one.window_pages += [0, 8]
    device.take(chunks((one, 4, 6)))
    assert device.row(one)[1][:4] == [5, 0, 8, UNKNOWN] and device.row(one)[0][:3] == [7, 3, 9]
    device.take(chunks((one, 10, 1)))
    assert device.num_sent == 0


def test_a_decode_has_a_new_page_where_one_begins():
    device, one, other = Device(), request(num_prompt=7), request(num_prompt=9, seed=1)
    one.pages, one.window_pages = [4, 6], [1, 2]
    device.take(chunks((one, 0, 7), (other, 0, 9)))
    before = device.row(other)
    for size in range(8, 14):
        one.output_ids.append(1)
        other.output_ids = [1]  # amid a page
        if (size - 1) % PAGE_SIZE == 0:
            one.pages.append(10 + size)
            one.window_pages.append(20 + size)
        device.take(decodes(one, other))
        assert device.row(one)[0][: len(one.pages)] == one.pages, size
        assert device.row(one)[1][: len(one.pages)] == one.window_pages, size
        assert (device.num_sent > 0) == ((size - 1) % PAGE_SIZE == 0), size
    assert len(one.pages) == 4 and device.row(other) == before


def test_pages_that_left_the_window_are_not_sent():
    device, one = Device(), request(num_prompt=10)
    one.pages, one.window_pages, one.window_start = [7, 3, 9], [None, None, 5], 2
    device.take(chunks((one, 8, 2)))
    assert device.row(one)[1][:4] == [UNKNOWN, UNKNOWN, 5, UNKNOWN] and device.num_sent == 4


def test_who_comes_back_has_other_pages():
    """After a preemption: another row perhaps, all pages anew, known ones not taken for granted."""
    device, one = Device(), request(num_prompt=10)
    one.pages, one.window_pages = [7, 3, 9], [5, 6, 7]
    device.take(chunks((one, 0, 10)))
    device.tables.leave(one)
    one.output_ids.append(1)
    one.pages, one.window_pages = [1, 2, 4], [2, 1, 0]
    rows, fresh = device.take(chunks((one, 0, 11)))
    assert fresh == [one] and [row[:3] for row in device.row(one)] == [[1, 2, 4], [2, 1, 0]]


@pytest.mark.parametrize("seed", [0, 5, (1 << 63) + 3, (1 << 64) - 1])
def test_settings_are_the_bits_of_what_was_asked_for(seed):
    params = SamplingParams(temperature=0.7, top_k=5, top_p=0.9, min_p=0.01)
    one = Request([1], params, seed, 1, frozenset())
    plain = Request([1], SamplingParams(top_k=VOCAB + 9), 0, 1, frozenset())
    tables = Tables(2, 1, PAGE_SIZE, VOCAB)
    rows, _ = tables.rows(chunks((one, 0, 1), (plain, 0, 1)))
    numbers = tables.settings[rows[0]]
    assert int(numbers[:2].view(np.uint64)[0]) == seed and numbers[3] == 5
    floats = numbers.view(np.float32)
    assert [floats[2], floats[4], floats[5]] == [np.float32(x) for x in (0.7, 0.9, 0.01)]
    assert tables.settings[rows[1]][3] == VOCAB
    tables.leave(plain)
    unset = Request([1], SamplingParams(), 0, 1, frozenset())
    assert tables.settings[tables.rows(chunks((unset, 0, 1)))[0][0]][3] == VOCAB


class TablesRunner(OracleRunner):
    """Checks tables and packed numbers of every step before it runs over the oracle."""

    seen = Counter()

    def __init__(self, random=None, window=0):
        super().__init__(random, window)
        self.device = Device(num_rows=4)

    def forget(self, request):
        super().forget(request)
        self.device.tables.leave(request)

    def launch(self, step):
        rows, fresh = self.device.take(step)
        demand(fresh == [r for r in step.requests if r not in self.known], "who is new")
        for request, start, count in zip(step.requests, step.starts, step.counts, strict=True):
            full, sliding = self.device.row(request)
            last = (start + count - 1) // PAGE_SIZE
            first = max(0, start - self.window + 1) // PAGE_SIZE
            demand(full[: len(request.pages)] == request.pages, "full pages")
            demand(sliding[first : last + 1] == request.window_pages[first : last + 1], "sliding")
            demand(len(request.pages) > last, "pages of all its tokens")
        layout = Layout(step.num_tokens, len(step.requests), len(step.sampling))
        settings = slow_inputs.random_settings(self.random, layout.num_samples)
        words = pack(step, rows, settings, PAGE_SIZE, layout)
        expected = slow_inputs.numbers_of(step, rows, settings, PAGE_SIZE)
        demand(slow_inputs.fields_of(words, layout) == expected, "packed numbers")
        self.seen["steps"] += 1
        self.seen["pages"] += self.device.num_sent > 0
        self.seen["came back"] += any(r.num_preemptions for r in fresh)
        return super().launch(step)


@pytest.mark.parametrize("block", range(4))
def test_random_traces(monkeypatch, block):
    """Admissions, growth, windows, preemptions, shared pages, failures."""
    monkeypatch.setattr(harness, "OracleRunner", TablesRunner)
    monkeypatch.setattr(TablesRunner, "seen", Counter())
    for seed in range(150 * block, 150 * (block + 1)):
        run = run_trace(seed)
        assert not run.runner.device.tables._rows
        assert sorted(run.runner.device.tables._free) == [0, 1, 2, 3]
    seen = TablesRunner.seen
    assert seen["came back"] > 20 and seen["steps"] > seen["pages"] > 500, seen
