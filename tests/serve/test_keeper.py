"""An engine that falls is started again, and what the log and the clients are told."""

import asyncio
import logging
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from haast.errors import HaastError
from haast.serve import keeper
from haast.serve.client import EngineDownError

from .conftest import collect, fake, params, run, told, until
from .fake_engine_process import answer


@asynccontextmanager
async def kept(client):
    """The client with its keeper; yields the restarts so far."""
    restarts = []
    async with client:
        keeping = asyncio.create_task(keeper.keep(client, lambda: restarts.append(client.is_up)))
        yield restarts
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping


def lines(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "haast.serve.keeper"]


def test_a_killed_engine_comes_back(monkeypatch, caplog):
    monkeypatch.setattr(keeper, "FIRST_DELAY_S", 0.3)

    async def work():
        client = fake("slow", max_length=900)
        async with kept(client) as restarts:
            for count in (1, 2):
                call = asyncio.create_task(collect(client, [1], params(800)))
                await until(lambda: client.stats().num_running == 1)
                os.kill(client._child.pid, signal.SIGKILL)
                assert "killed by SIGKILL" in await told([call])
                await until(lambda: client.back_at > 0)
                with pytest.raises(EngineDownError, match="SIGKILL|loading") as refused:
                    await collect(client, [1], params())
                assert refused.value.retry_s == 1
                await until(lambda n=count: len(restarts) == n)
                assert (await collect(client, [1], params()))[0] == answer([1], 10)
            assert restarts == [True, True]

    run(work())
    down, back, *again = lines(caplog)
    assert down.startswith("the engine is down: the engine process (pid ")
    assert down.endswith(" was killed by SIGKILL; requests are answered with 503")
    assert back.startswith("the engine is back after ") and len(again) == 2


def test_what_cannot_be_loaded_is_told_once_and_tried_again(monkeypatch, caplog):
    monkeypatch.setattr(keeper, "FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(keeper, "LONGEST_DELAY_S", 0.02)

    async def work():
        client = fake()
        async with kept(client) as restarts:
            fine, starts, start = client.config, [], client.start

            async def counted():
                starts.append(None)
                await start()

            client.start = counted
            client.config = replace(fine, model_path=Path("unloadable"))
            os.kill(client._child.pid, signal.SIGKILL)
            await until(lambda: len(starts) == 3)
            told_meanwhile = client.stats().dead_because
            client.config = fine
            await until(lambda: restarts == [True])
            assert told_meanwhile in ("no such model: unloadable", "the engine process is loading")

    run(work())
    assert [line.split(":")[0] for line in lines(caplog)] == [
        "the engine is down",
        "the engine cannot be started, which is tried again",
        lines(caplog)[2],
    ]
    assert lines(caplog)[1].endswith("no such model: unloadable")
    assert lines(caplog)[2].startswith("the engine is back after ")
    assert [r.levelno for r in caplog.records] == [logging.ERROR, logging.ERROR, logging.WARNING]


class Falling:
    """A client whose n-th life takes so many seconds, and whose starts may fail."""

    def __init__(self, clock, lives):
        self.clock = clock
        self.lives = iter(lives)
        self.info = SimpleNamespace(load_s=7.0)
        self.back_at = 0.0

    async def wait_down(self):
        life = next(self.lives, None)
        if life is None:
            raise asyncio.CancelledError
        self.clock.now += life
        return "it burnt"

    async def start(self):
        if self.clock.failures:
            raise self.clock.failures.pop()


class Clock:
    def __init__(self):
        self.now = 100.0
        self.slept = []
        self.failures = []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_delays_double_up_to_a_minute_and_start_anew_after_a_steady_life(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(keeper, "asyncio", SimpleNamespace(sleep=clock.sleep))
    monkeypatch.setattr(keeper, "monotonic", lambda: clock.now)
    clock.failures = [HaastError("a"), EngineDownError("b"), OSError("c"), *[HaastError("d")] * 4]
    client = Falling(clock, [1000, 59, 60, 3])
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(keeper.keep(client, lambda: None))
    assert clock.slept == [1, 2, 4, 8, 16, 32, 60, 60, 60, 1, 2]
    assert client.back_at == clock.now + 7
