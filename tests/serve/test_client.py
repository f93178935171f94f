"""Calls over a process whose engine computes nothing."""

import asyncio
from contextlib import aclosing
from random import Random

import pytest

from haast.engine.request import QueueFullError, RequestError
from haast.serve.messages import Found, Progress

from .conftest import collect, exhaust, fake, params, run, until
from .fake_engine_process import answer


def test_an_answer_and_what_was_loaded():
    async def work():
        seen = []
        client = fake(max_batch_size=3)
        assert not client.is_up and client.stats().dead_because
        await client.start(seen.append)
        assert client.is_up and seen == [Found("none"), Progress(1, 2), Progress(2, 2)]
        assert (client.info.max_batch_size, client.info.plan) == (3, {"device": "none"})
        ids, last = await collect(client, [5, 6], params(9))
        assert ids == answer([5, 6], 9)
        assert (last.index, last.finish_reason) == (0, "length")
        assert last.logprobs is last.error is None
        await client.close()
        assert not client.is_up

    run(work())


def test_many_calls_at_once_and_random_cancels():
    random = Random(1)

    async def one(client, first_id):
        prompt, wanted = [first_id, *range(random.randrange(100))], random.randrange(1, 200)
        stop_after = random.choice([0, 1, 5, 1000])
        ids = []
        async with aclosing(client.generate(prompt, params(wanted))) as news:
            async for tokens in news:
                ids += tokens.token_ids
                if len(ids) >= stop_after:
                    break
        is_whole = len(ids) == wanted
        assert ids == answer(prompt, len(ids)) and (is_whole or len(ids) >= stop_after)
        return is_whole

    async def work():
        async with fake("slow", max_batch_size=8) as client:
            tasks = [asyncio.create_task(one(client, i)) for i in range(40)]
            await asyncio.sleep(0.1)
            for task in random.sample(tasks, 10):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {True, False} == {r for r in results if isinstance(r, bool)}
            wrong = [r for r in results if not isinstance(r, (bool, asyncio.CancelledError))]
            assert wrong == [] and len(client._calls) == 0
            await until(lambda: client.stats().num_running == client.stats().num_waiting == 0)
            assert client.stats().kv_usage == 0

    run(work())


@pytest.mark.parametrize("how", ["cancel", "aclose", "let go"])
def test_who_goes_away_frees_the_engine(how):
    async def work():
        async with fake("slow", max_length=900) as client:
            news = client.generate([1], params(800, n=2))
            await anext(news)
            await until(lambda: client.stats().num_running == 2)
            steps = client.stats().steps
            if how == "cancel":
                task = asyncio.create_task(exhaust(news))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            elif how == "aclose":
                await news.aclose()
            else:
                del news
            await until(lambda: client.stats().num_running == 0)
            assert client.stats().kv_usage == 0 and client.stats().steps < steps + 40

    run(work())


def test_answers_of_several_are_cancelled_and_free_their_pages():
    async def work():
        async with fake("slow", max_length=900) as client:
            news = client.generate([1], params(800, n=3))
            seen = {}
            async for tokens in news:
                seen[tokens.index] = tokens
                if len(seen) == 3:
                    break
            await until(lambda: client.stats().num_running == 3)
            steps, usage = client.stats().steps, client.stats().kv_usage
            client.cancel(seen[1].number)
            client.cancel(seen[0].number)
            ends = []
            async for tokens in news:
                ends += [(tokens.index, tokens.finish_reason)] if tokens.finish_reason else []
                if client.stats().num_running == 1:
                    break
            # at once here; there after a message and two steps, and ten until it is told
            assert sorted(ends) == [(0, "cancelled"), (1, "cancelled")]
            assert client.stats().steps <= steps + 40
            assert client.stats().kv_usage < usage
            await news.aclose()
            await until(lambda: client.stats().num_running == 0)

    run(work())


def test_several_answers_keep_apart_and_have_logprobs():
    async def work():
        async with fake() as client:
            ids, logprobs, ends = {}, {}, {}
            async for tokens in client.generate([3] * 70, params(20, n=5, logprobs=2)):
                assert tokens.index not in ends
                ids.setdefault(tokens.index, []).extend(tokens.token_ids)
                logprobs.setdefault(tokens.index, []).extend(tokens.logprobs)
                if tokens.finish_reason:
                    ends[tokens.index] = tokens
            assert ids == {i: answer([3] * 70, 20) for i in range(5)}
            assert {end.finish_reason for end in ends.values()} == {"length"}
            assert [ends[i].cached_tokens for i in range(5)] == [0] + [64] * 4
            for i in range(5):
                assert [of.top for of in logprobs[i]] == [
                    ((token, 0.0), (token + 1, -1.0)) for token in ids[i]
                ]
            await until(lambda: client.stats().num_running == 0)
            stats = client.stats()
            assert (stats.prefix_queries, stats.prefix_hits) == (5 * 70, 4 * 64)

    run(work())


def test_whoever_is_slow_gets_more_tokens_at_a_time():
    async def work():
        async with fake() as client:
            news = client.generate([1], params(100))
            first = await anext(news)
            await asyncio.sleep(0.3)
            rest = [tokens async for tokens in news]
            assert len(rest) <= 2
            assert [*first.token_ids, *(i for t in rest for i in t.token_ids)] == answer([1], 100)

    run(work())


WRONG = {
    "too long": ([1] * 999, {}, {}, "exceed max_length 1000"),
    "unknown id": ([1, 1000], {}, {}, "token id 1000 is not in the vocabulary"),
    "empty": ([], {}, {}, "no tokens"),
    "not ids": ([0.5], {}, {}, "not allowed"),
    "no int32": ([1 << 40], {}, {}, "not allowed"),
    "no number at all": ([1], {"stop_token_ids": [1 << 70]}, {}, "not allowed"),
    "priority": ([1], {}, {"priority": 1 << 70}, "not allowed"),
    "salt": ([1], {}, {"salt": "\ud800"}, "not allowed"),
}


def test_a_call_that_cannot_run_is_refused_and_harms_nobody():
    async def work():
        async with fake() as client:
            for prompt, changes, options, message in WRONG.values():
                with pytest.raises(RequestError, match=message):
                    await collect(client, prompt, params(**changes), **options)
            assert len(client._calls) == 0
            assert (await collect(client, [1], params()))[0] == answer([1], 10)

    run(work())


def test_a_full_queue():
    async def work():
        async with fake("slow", max_batch_size=1, max_queue_size=2) as client:
            tasks = []
            for i in range(3):
                tasks.append(asyncio.create_task(collect(client, [i], params(60))))
                await until(lambda n=i + 1: sum(in_engine(client)) == n)
            assert in_engine(client) == (1, 2)
            with pytest.raises(QueueFullError, match="2 requests wait"):
                await collect(client, [9], params())
            await client.probe(5)  # it decodes, if not for the probe
            results = await asyncio.gather(*tasks)
            assert [ids for ids, _ in results] == [answer([i], 60) for i in range(3)]

    run(work())


def in_engine(client):
    return client.stats().num_running, client.stats().num_waiting


def test_priority():
    async def work():
        ended = []

        async def one(client, name, priority):
            await collect(client, [1], params(20), priority=priority)
            ended.append(name)

        async with fake("slow", max_batch_size=1) as client:
            await asyncio.gather(one(client, "a", 0), one(client, "b", 1), one(client, "c", 0))
        assert ended == ["a", "c", "b"]

    run(work())
