"""A server whose model is on two processes, of which one dies."""

import asyncio
import os
import signal

import pytest

from ..conftest import is_alive
from .conftest import (
    SHORT,
    ServerProcess,
    ask,
    children_of,
    metric,
    run,
    streams,
    until_metric,
    wait_until,
)

NUM_STREAMS = 3


@pytest.fixture
def server():
    server = ServerProcess(devices="2xcpu")
    yield server
    server.clean_up()


def test_a_killed_rank(server):
    """Streams end with the reason, requests get a 503, and all ranks come back."""
    engine = server.engine_pid
    (killed,) = children_of(engine)
    reason = "rank 1 (cpu) was killed by SIGKILL"

    async def work():
        clients = await streams(server.port, NUM_STREAMS)
        os.kill(killed, signal.SIGKILL)
        answers = await asyncio.gather(*(client.end() for client in clients))
        assert all(answer.is_whole for answer in answers)
        assert all(answer.error["message"].endswith(reason) for answer in answers)
        refused = await ask(server.port, "/v1/completions", SHORT)
        assert (refused.status, refused.error["code"]) == (503, "engine_down")
        assert refused.error["message"].endswith(reason)
        await until_metric(server.port, "haast:engine_up", 1, 60)
        assert (await ask(server.port, "/v1/completions", SHORT)).status == 200
        assert await metric(server.port, "haast:engine_restarts_total") == 1

    run(work())
    assert not is_alive(engine) and not is_alive(killed)
    ranks = [server.engine_pid, *children_of(server.engine_pid)]
    os.kill(ranks[1], signal.SIGKILL)
    wait_until(lambda: "down: the engine process" in server.lines()[-1])  # though nobody asks
    assert f"{reason}; requests are answered with 503" in server.lines()[-1]
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    wait_until(lambda: not any(map(is_alive, ranks)))
