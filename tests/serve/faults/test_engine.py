"""The engine process of a real server dies or stands still."""

import asyncio
import os
import signal
import time

from ..conftest import is_alive
from .conftest import LONG, SHORT, ask, metric, run, streams, until_metric

NUM_STREAMS = 50


def test_a_killed_engine(unharmed):
    """Every stream ends with an error, /health is red at once, and it comes back by itself."""
    server, killed = unharmed, unharmed.engine_pid

    async def work():
        clients = await streams(server.port, NUM_STREAMS)
        restarts = await metric(server.port, "haast:engine_restarts_total")
        os.kill(killed, signal.SIGKILL)
        fell_at = time.monotonic()
        health = await ask(server.port, "/health")
        assert health.status == 503 and time.monotonic() - fell_at < 2
        answers = await asyncio.gather(*(client.end() for client in clients))
        assert time.monotonic() - fell_at < 5
        assert all(answer.is_whole for answer in answers)
        reasons = {(a.error["code"], a.error["message"]) for a in answers}
        reason = f"the engine process (pid {killed}) was killed by SIGKILL"
        assert reasons == {("engine_down", reason)} and health.error["message"] == reason
        assert await metric(server.port, "haast:engine_up") == 0
        refused = await ask(server.port, "/v1/completions", SHORT)
        assert (refused.status, refused.error["code"]) == (503, "engine_down")
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        await until_metric(server.port, "haast:engine_up", 1, 40)
        assert (await ask(server.port, "/health")).status == 200
        assert await metric(server.port, "haast:engine_restarts_total") == restarts + 1
        return reason

    reason = run(work())
    down, back = [line for line in server.lines() if "the engine is" in line][-2:]
    assert down == f"ERROR the engine is down: {reason}; requests are answered with 503"
    assert back.startswith("WARNING the engine is back after ")
    assert not is_alive(killed) and server.engine_pid != killed


def test_an_engine_that_stands_still_holds_nobody_up_but_who_needs_it(unharmed):
    server = unharmed

    async def work():
        os.kill(server.engine_pid, signal.SIGSTOP)
        try:
            waiting = asyncio.create_task(ask(server.port, "/v1/completions", SHORT))
            for path in ("/ping", "/metrics", "/v1/models"):
                assert (await ask(server.port, path)).status == 200
            assert not waiting.done()
        finally:
            os.kill(server.engine_pid, signal.SIGCONT)
        assert (await waiting).is_whole

    run(work())


def test_clients_that_leave_free_the_engine(unharmed):
    """Half with a farewell, half without."""
    server = unharmed

    async def work():
        clients = await streams(server.port, 16)
        waiting = asyncio.create_task(
            ask(server.port, "/v1/completions", LONG | {"stream": False, "n": 4})
        )
        await until_metric(server.port, "vllm:num_requests_running", 20)
        for number, client in enumerate(clients):
            client.close() if number % 2 else client.reset()
        await until_metric(server.port, "vllm:num_requests_running", 4, 5)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    run(work())
