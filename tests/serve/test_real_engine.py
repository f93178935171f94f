"""The engine process with haast-tiny on the CPU gives what `LLM` gives."""

import asyncio
from contextlib import aclosing
from random import Random

import pytest
import torch

from haast import LLM
from haast.config import ConfigError, EngineConfig
from haast.engine.request import RequestError
from haast.errors import HaastError
from haast.serve.client import EngineClient

from .conftest import children, collect, params, until

WISHES = {"devices": "cpu", "max_batch_size": 4, "max_length": 640}
QUESTIONS = ["What is a bald eagle?", "What is a harbor?", "What is gold?"]


@pytest.fixture(scope="module")
def llm():
    torch.set_num_threads(1)
    return LLM(**WISHES)


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def client(loop):
    client = EngineClient(EngineConfig(**WISHES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        loop.run(client.start())
    yield client
    loop.run(client.close())
    assert children() == []


def expected(llm, questions, wanted):
    results = llm.generate(questions, wanted, reasoning_effort="low")
    return [(list(r.prompt_token_ids), list(r.token_ids), r) for r in results]


def test_what_is_told_of_the_model(llm, client):
    info = client.info
    assert (info.max_length, info.vocab_size) == (640, llm.tokenizer.vocab_size)
    assert info.kv_tokens == llm.plan.memory.kv_tokens
    assert info.plan["memory"]["num_pages"] == llm.plan.memory.num_pages
    assert info.plan["model_path"] == info.model_path == str(llm.plan.model_path)
    assert info.tokenizer == str(llm.tokenizer.path) and info.found == llm.found
    assert 0 < info.load_s < 60


def test_tokens_and_logprobs_of_answers_at_once(llm, client, loop):
    wanted = params(24, logprobs=2)
    prompts = expected(llm, QUESTIONS, wanted)

    async def one(prompt):
        ids, logprobs = [], []
        async for tokens in client.generate(prompt, wanted):
            ids += tokens.token_ids
            logprobs += tokens.logprobs
        return ids, logprobs, tokens.finish_reason

    async def work():
        return await asyncio.gather(*(one(prompt) for prompt, *_ in prompts))

    for (ids, logprobs, reason), (_, wanted_ids, result) in zip(
        loop.run(work()), prompts, strict=True
    ):
        assert ids == wanted_ids and reason == result.finish_reason
        assert [of.top[0][0] for of in logprobs] == ids
        assert [of.logprob for of in logprobs] == pytest.approx(
            [of.logprob for of in result.logprobs], abs=0.02
        )


def test_two_answers_with_a_seed(llm, client, loop):
    wanted = params(8, n=2, seed=7, temperature=50.0)
    first, second = expected(llm, QUESTIONS[:1], wanted)

    async def work():
        ids = {0: [], 1: []}
        async for tokens in client.generate(first[0], wanted):
            ids[tokens.index] += tokens.token_ids
        return ids

    assert loop.run(work()) == {0: first[1], 1: second[1]} and first[1] != second[1]


def test_twenty_calls_with_random_cancels(llm, client, loop):
    random = Random(3)
    prompts = expected(llm, QUESTIONS, params(16))

    async def one(prompt, ids, stop_after):
        got = []
        async with aclosing(client.generate(prompt, params(16))) as news:
            async for tokens in news:
                got += tokens.token_ids
                if len(got) >= stop_after:
                    break
        assert got == ids[: len(got)] and len(got) >= min(stop_after, len(ids))

    async def work():
        tasks = []
        for i in range(20):
            prompt, ids, _ = prompts[i % len(prompts)]
            stop_after = random.choice([1, 7, 100])
            tasks.append(asyncio.create_task(one(prompt, ids, stop_after)))
        await asyncio.sleep(0.2)
        for task in random.sample(tasks, 6):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(r) for r in results} <= {type(None), asyncio.CancelledError}
        await until(lambda: client.stats().num_running == client.stats().num_waiting == 0)
        assert client.stats().kv_usage == 0

    loop.run(work())


def test_a_refusal_and_a_probe(client, loop):
    async def work():
        with pytest.raises(RequestError, match="exceed max_length 640"):
            await collect(client, [1] * 640, params())
        await client.probe(20)

    loop.run(work())


def test_wishes_that_do_not_fit(loop):
    with pytest.raises(HaastError) as refused:
        loop.run(EngineClient(EngineConfig(devices="cpu", max_length=1 << 20)).start())
    assert "max_length 1048576 exceeds the model's" in str(refused.value)
    assert not isinstance(refused.value, ConfigError)  # what crosses is its text
