"""Who gets what of a step, without a process."""

import asyncio

import pytest

from haast.engine.request import QueueFullError, RequestError, TokenLogprobs
from haast.serve.calls import Calls
from haast.serve.messages import EngineDownError, News, Refused, Stepped, Tokens

FEW = TokenLogprobs(-0.5, ((1, -0.5),))


def news(number, token_ids, reason=None, *, logprobs=(), cached=0, error=None):
    return News(number, token_ids, list(logprobs), reason, cached, error)


def taken(call):
    return asyncio.run(asyncio.wait_for(call.news(), 1))


def test_steps_come_together_until_they_are_taken():
    calls = Calls()
    call, other = calls.open(2, False), calls.open(1, True)
    calls.take(Stepped([], [], [news(1, [5], cached=64), news(0, [6])]))
    calls.take(Stepped([0, 1], [7, 8], []))
    calls.take(Stepped([0], [9], [news(1, [10], "stop", cached=64)]))
    assert not call.is_done and len(calls) == 2
    assert taken(call) == [
        Tokens(1, (5, 8, 10), None, "stop", 64, None, 1),
        Tokens(0, (6, 7, 9), None, None, 0, None, 0),
    ]
    calls.take(Stepped([0], [11], [news(2, [12], logprobs=[FEW])]))
    assert taken(call) == [Tokens(0, (11,), None, None, 0, None, 0)]
    assert taken(other) == [Tokens(0, (12,), (FEW,), None, 0, None, 2)]
    calls.take(Stepped([0], [13], [news(0, [], "error", error="a fault")]))
    assert not call.is_done
    assert taken(call) == [Tokens(0, (13,), None, "error", 0, "a fault", 0)]
    assert call.is_done and not other.is_done and len(calls) == 1


def test_whoever_is_forgotten_gets_nothing_and_numbers_are_not_used_again():
    calls = Calls()
    call = calls.open(3, False)
    calls.take(Stepped([], [], [news(1, [5], "length")]))
    assert calls.forget(call) == [0, 2] and calls.forget(call) == []
    calls.take(Stepped([0], [1], [news(2, [2], "stop")]))
    assert calls.open(1, False).number == 3 and len(calls) == 1


def test_one_answer_is_cancelled():
    calls = Calls()
    call = calls.open(3, False)
    calls.take(Stepped([], [], [news(1, [5]), news(2, [6], "stop")]))
    assert [calls.cancel(number) for number in (1, 1, 2, 3)] == [True, False, False, False]
    calls.take(Stepped([0, 1], [7, 8], []))
    assert taken(call) == [
        Tokens(1, (5,), None, "cancelled", 0, None, 1),
        Tokens(2, (6,), None, "stop", 0, None, 2),
        Tokens(0, (7,), None, None, 0, None, 0),
    ]
    assert not call.is_done and calls.cancel(0) and len(calls) == 0
    assert taken(call)[0].finish_reason == "cancelled" and call.is_done


def test_who_waits_is_woken():
    async def work():
        calls = Calls()
        call = calls.open(1, False)
        waiting = asyncio.create_task(call.news())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        calls.take(Stepped([0], [4], []))
        assert [tokens.token_ids for tokens in await waiting] == [(4,)]

    asyncio.run(work())


@pytest.mark.parametrize("is_full, kind", [(True, QueueFullError), (False, RequestError)])
def test_a_refusal_is_of_the_whole_call(is_full, kind):
    calls = Calls()
    call, _ = calls.open(4, False), calls.open(1, False)
    calls.refuse(Refused(0, is_full, "why not"))
    calls.refuse(Refused(99, is_full, "of a call that was forgotten"))
    assert len(calls) == 1
    with pytest.raises(kind, match="^why not$"):
        taken(call)


def test_what_came_before_the_end_of_the_engine_is_still_told():
    calls = Calls()
    ended, started, waiting = (calls.open(1, False) for _ in range(3))
    calls.take(Stepped([1], [4], [news(0, [3], "stop")]))
    calls.fail("it burnt")
    assert len(calls) == 0
    assert taken(ended)[0].finish_reason == "stop" and ended.is_done
    assert taken(started)[0].token_ids == (4,)
    for call in (started, waiting):
        with pytest.raises(EngineDownError, match="^it burnt$"):
            taken(call)
