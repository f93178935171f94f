"""Whether an engine decodes, asked of it."""

import asyncio
import os
import signal

import pytest

from haast.engine.request import QueueFullError
from haast.serve.client import EngineDownError

from .conftest import exhaust, fake, params, run, until


def test_a_probe():
    async def work():
        async with fake() as client:
            await client.probe(5)
            await until(lambda: client.stats().prefix_queries == 1)
            os.kill(client._child.pid, signal.SIGSTOP)
            with pytest.raises(EngineDownError, match=r"no token within 0\.2 s"):
                await client.probe(0.2)
            os.kill(client._child.pid, signal.SIGCONT)
            await client.probe(5)

    run(work())


def test_a_probe_that_finds_the_queue_full_waits_for_a_token_of_others():
    async def full(*_args, **_options):
        raise QueueFullError("too many")
        yield

    async def work():
        async with fake("slow", max_length=900) as client:
            generate, client.generate = client.generate, full
            with pytest.raises(EngineDownError, match="no token within"):
                await client.probe(0.2)
            news = generate([1], params(800))
            task = asyncio.create_task(exhaust(news))
            await client.probe(5)
            task.cancel()

    run(work())
