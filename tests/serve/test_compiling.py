"""Calls with grammars: they wait for their grammar, and nobody waits for them."""

import time
from threading import Event, current_thread

import pytest

from haast.config import EngineConfig
from haast.engine.request import RequestError
from haast.serve.compiling import Compiling
from haast.serve.engine_loop import EngineLoop
from haast.serve.messages import Cancel, Refused

from .fake_engine_process import answer, make_engine
from .test_engine_loop import FakeChannel, submit


class AnyMatcher:
    is_done, why_stuck = False, None

    def consume(self, token_id):
        return None


class SlowGrammars:
    """Takes until it may; `bad` is no grammar."""

    def __init__(self):
        self.may_go = Event()
        self.compiled = {}
        self.tried = []

    def warm(self):
        self.compiled["warm"] = current_thread().name

    def is_compiled(self, text):
        return text in self.compiled

    def compile(self, text):
        assert self.may_go.wait(20)
        self.tried.append((text, current_thread().name))
        if text == "bad":
            raise RequestError("grammar: bad is none")
        self.compiled[text] = current_thread().name

    def matcher(self, text):
        self.compile(text)
        return AnyMatcher()

    def fill(self, matchers, masks, size):
        assert len(masks) == len(matchers) * size


class Desk:
    def __init__(self, **wishes):
        self.grammars = SlowGrammars()
        self.channel = FakeChannel()
        engine = make_engine(EngineConfig(**wishes), grammars=self.grammars)
        self.loop = EngineLoop(engine, self.channel)

    def turn(self, *messages):
        self.channel.inbox = list(messages)
        self.loop.turn()

    def run(self):
        """Until nothing is left to do."""
        end = time.monotonic() + 20
        while self.loop.engine.has_work or self.loop._compiling:
            assert time.monotonic() < end
            self.turn()

    def told(self, number):
        """Token ids of an answer, and how it ended."""
        ids, reason = [], None
        for message in self.channel.sent:
            if isinstance(message, Refused):
                continue
            ids += [
                t for n, t in zip(message.numbers, message.token_ids, strict=True) if n == number
            ]
            for news in message.news:
                if news.number == number:
                    ids, reason = ids + news.token_ids, news.finish_reason
        return ids, reason


@pytest.fixture
def desk():
    made = Desk()
    yield made
    made.grammars.may_go.set()


def test_others_go_on_while_a_grammar_is_compiled(desk):
    desk.turn(submit(0, [1], grammar="slow"), submit(1, [2]))
    for _ in range(8):
        desk.turn()
    assert desk.told(1) == (answer([2], 3), "length") and desk.told(0) == ([], None)
    assert desk.channel.patience[-1] == 1, "it looks after its thread while it is idle"
    desk.grammars.may_go.set()
    desk.run()
    assert desk.told(0) == (answer([1], 3), "length")
    desk.turn(submit(2, [3], grammar="slow"))
    assert not desk.loop._compiling, "it is known by now"
    desk.run()
    assert desk.told(2) == (answer([3], 3), "length")


def test_a_grammar_that_is_done_at_any_moment_loses_no_call():
    class Future:
        """Done from the second time on that it is asked."""

        def __init__(self):
            self.answers = iter([False])

        def done(self):
            return next(self.answers, True)

        def exception(self):
            return None

    compiling = Compiling(None)
    compiling._calls = [(submit(0, [1], grammar="x"), Future())]
    taken = compiling.take() + compiling.take()
    assert [call.number for call, _ in taken] == [0] and not compiling


def test_a_cancelled_call_is_forgotten(desk):
    desk.turn(submit(0, [1], grammar="a", n=2), submit(2, [1], grammar="a"))
    desk.turn(Cancel([0]))
    assert len(desk.loop._compiling) == 2
    desk.turn(Cancel([0, 1]))
    desk.grammars.may_go.set()
    desk.run()
    assert desk.told(0) == desk.told(1) == ([], None)
    assert desk.told(2)[1] == "length"


def test_a_grammar_that_nobody_waits_for_is_not_compiled(desk):
    desk.turn(submit(0, [1], grammar="first"), submit(1, [1], grammar="dropped"))
    desk.turn(Cancel([1]))
    desk.grammars.may_go.set()
    desk.turn(submit(2, [1], grammar="last"))
    desk.run()
    assert {text for text, _ in desk.grammars.tried} == {"first", "last"}


def test_who_waits_for_a_grammar_waits_in_the_queue():
    desk = Desk(max_queue_size=3)
    desk.turn(*(submit(2 * i, [1], grammar=f"g{i}", n=2) for i in range(2)))
    desk.turn(submit(4, [1], grammar="g2"))
    (refused,) = [m for m in desk.channel.sent if isinstance(m, Refused)]
    assert refused == Refused(2, True, "2 requests wait for grammars; more exceed max_queue_size 3")
    assert desk.loop._stats().num_waiting == 3
    desk.turn(Cancel([0, 1]))
    assert desk.loop._stats().num_waiting == 1
    desk.grammars.may_go.set()
    desk.run()
    assert desk.told(4)[1] == "length" and desk.told(0) == ([], None)


def test_what_is_no_grammar_is_refused(desk):
    desk.grammars.may_go.set()
    desk.turn(submit(7, [1], grammar="bad"))
    desk.run()
    refused = [m for m in desk.channel.sent if isinstance(m, Refused)]
    assert refused == [Refused(7, False, "grammar: bad is none")]
    ((_, thread),) = desk.grammars.tried
    assert thread != current_thread().name, "the engine does not try it again"


def test_the_vocabulary_is_read_in_the_thread():
    grammars = SlowGrammars()
    grammars.may_go.set()
    compiling = Compiling(grammars)
    compiling.warm()
    assert not compiling.must_wait(submit(1, [1]))
    call = submit(0, [1], grammar="x")
    assert compiling.must_wait(call)
    compiling.add(call)
    end = time.monotonic() + 20
    while not (ready := compiling.take()):
        assert time.monotonic() < end
        time.sleep(0.001)
    assert [(call.number, why) for call, why in ready] == [(0, None)] and len(compiling) == 0
    assert grammars.compiled["warm"] == grammars.compiled["x"] != current_thread().name
    assert not Compiling(None).must_wait(call)
    Compiling(None).warm()
