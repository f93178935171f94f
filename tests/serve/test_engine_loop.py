"""What the engine process tells, message by message, without a process."""

import gc
from array import array

import msgspec
import pytest

from haast.config import EngineConfig, SpeculativeConfig
from haast.engine.engine import EngineDeadError
from haast.serve import engine_loop
from haast.serve.engine_loop import EngineLoop
from haast.serve.messages import (
    Cancel,
    Dead,
    News,
    Refused,
    Start,
    Stepped,
    Submit,
    from_plain,
    to_plain,
)

from . import fake_engine_process
from .conftest import params
from .fake_engine_process import answer, make_engine


class FakeChannel:
    """Remembers what was sent, and for how long nothing came."""

    def __init__(self):
        self.inbox, self.sent, self.patience = [], [], []

    def receive(self, timeout_ms):
        self.patience.append(timeout_ms)
        messages, self.inbox = self.inbox, []
        return messages

    def send(self, message):
        self.sent.append(message)


class Desk:
    """A loop over a fake engine, and a clock that stands still."""

    def __init__(self, monkeypatch, fate="", **wishes):
        self.channel = FakeChannel()
        self.loop = EngineLoop(make_engine(EngineConfig(**wishes), fate), self.channel)
        self.now = 1000.0
        monkeypatch.setattr(engine_loop, "monotonic", lambda: self.now)

    def turn(self, *messages):
        """What one turn sends."""
        self.channel.inbox, self.channel.sent = list(messages), []
        self.loop.turn()
        return self.channel.sent


def submit(number, prompt_ids, *, priority=0, **changes):
    prompt = array("i", prompt_ids).tobytes()
    return Submit(number, prompt, params(**{"num_tokens": 3} | changes), priority, None)


@pytest.fixture
def desk(monkeypatch):
    return Desk(monkeypatch)


def test_one_message_a_step_with_the_tokens_of_all(desk):
    first, second = answer([1], 3), answer([2, 2], 3)
    desk.turn()
    (told,) = desk.turn(submit(10, [1])) or [None]
    while told is None:
        (told,) = desk.turn() or [None]
    assert told.news == [News(10, first[:1], [], None, 0, None)] and told.numbers == []
    sent = []
    desk.channel.inbox = [submit(20, [2, 2])]
    while desk.loop.engine.has_work or desk.channel.inbox:
        sent += desk.turn(*desk.channel.inbox)
    assert all(isinstance(message, Stepped) for message in sent)
    assert [(s.numbers, s.token_ids) for s in sent] == [
        ([10], first[1:2]),
        ([], []),
        ([20], second[1:2]),
        ([], []),
    ]
    assert [[(n.number, n.token_ids, n.finish_reason) for n in s.news] for s in sent] == [
        [],
        [(10, first[2:], "length"), (20, second[:1], None)],
        [],
        [(20, second[2:], "length")],
    ]
    assert desk.loop._requests == {} and desk.loop._numbers == {}


def test_logprobs_come_with_their_tokens(desk):
    sent = desk.turn(submit(0, [1], logprobs=1))
    while desk.loop.engine.has_work:
        sent += desk.turn()
    news = [n for message in sent for n in message.news]
    assert [n.token_ids for n in news] == [[token] for token in answer([1], 3)]
    assert all(n.logprobs[0].top == ((n.token_ids[0], 0.0),) for n in news)
    assert not any(message.numbers for message in sent)


def test_stats_come_when_they_are_due_and_changed(desk):
    (told,) = desk.turn()
    assert told.stats.steps == 0 and desk.channel.patience == [1]
    desk.now += 1
    desk.turn()
    assert desk.channel.patience[-1] is None
    sent = desk.turn(submit(0, [1], num_tokens=400))
    for _ in range(50):
        sent += desk.turn()
    assert [message.stats for message in sent[1:]] == [None] * (len(sent) - 1)
    desk.now += 0.1
    (told,) = desk.turn()
    assert (told.stats.num_running, told.stats.prefix_queries) == (1, 1)
    assert told.stats.steps == 52 and 0 < told.stats.kv_usage < 1
    desk.turn(Cancel([0, 77]))
    while desk.loop.engine.has_work:
        desk.turn()
    assert desk.turn() == [] and 90 <= desk.channel.patience[-1] <= 101
    desk.now += 0.1
    (told,) = desk.turn()
    assert told.stats.num_running == told.stats.kv_usage == 0


def test_all_tokens_of_right_guesses_come_in_one_message(monkeypatch):
    """In order, before the last news; and what was right is told."""
    monkeypatch.setattr(fake_engine_process, "token_at", lambda first, position: position % 3)
    wish = SpeculativeConfig("ngram", 4, 1, 2)
    desk = Desk(monkeypatch, speculative_config=wish)
    sent = desk.turn(submit(5, [1], num_tokens=60))
    while desk.loop.engine.has_work:
        sent += desk.turn()
    told = [message for message in sent if isinstance(message, Stepped)]
    ids = [i for s in told for i in (*s.token_ids, *(i for n in s.news for i in n.token_ids))]
    assert ids == [position % 3 for position in range(1, 61)]
    assert max(len(s.numbers) for s in told) > 3 and {n for s in told for n in s.numbers} == {5}
    desk.now += 1
    (last,) = desk.turn()
    counts = desk.loop.engine.drafter.counts
    stats = last.stats
    assert (stats.num_drafts, stats.num_draft_tokens) == (counts.drafts, counts.tokens)
    assert stats.num_accepted_tokens == counts.accepted > 30
    assert stats.accepted_per_position == tuple(counts.per_position)


def test_the_wish_to_guess_arrives_as_it_was():
    start = Start(EngineConfig(speculative_config=SpeculativeConfig("ngram", 3)))
    sent = msgspec.msgpack.encode(start, enc_hook=to_plain)
    assert msgspec.msgpack.decode(sent, type=Start, dec_hook=from_plain) == start


def test_refusals_name_the_call(monkeypatch):
    desk = Desk(monkeypatch, max_queue_size=1)
    sent = desk.turn(submit(0, [1]), submit(1, [1]), submit(2, []), submit(3, [1], n=2))
    refused = [message for message in sent if isinstance(message, Refused)]
    assert [(r.number, r.is_queue_full) for r in refused] == [(1, True), (2, False), (3, True)]
    assert "max_queue_size 1" in refused[0].message
    assert refused[1].message == "the prompt has no tokens"


def test_a_dead_engine_is_told_last(monkeypatch):
    desk = Desk(monkeypatch, "dying", max_batch_size=1)
    desk.channel.inbox = [submit(0, [1], num_tokens=20), submit(1, [2])]
    with pytest.raises(EngineDeadError):
        while True:
            desk.loop.turn()
    *_, ends, dead = desk.channel.sent
    assert dead == Dead("the engine is dead: RuntimeError: illegal memory access")
    assert {(n.number, n.finish_reason) for n in ends.news} == {(0, "error"), (1, "error")}


def test_garbage_is_collected_when_idle_or_long_overdue(desk, monkeypatch):
    collected = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(desk.loop._num_steps))
    monkeypatch.setattr(engine_loop, "MAX_STEPS_WITHOUT_GC", 30)
    desk.turn()
    desk.turn(submit(0, [1], num_tokens=70))
    while desk.loop.engine.has_work:
        desk.turn()
    desk.now += engine_loop.IDLE_S / 2
    desk.turn()
    assert collected == [30, 60] and desk.channel.patience[-1] <= 1 + 500 * engine_loop.IDLE_S
    desk.now += engine_loop.IDLE_S
    desk.turn()
    desk.turn()
    assert collected == [30, 60, desk.loop._num_steps]
