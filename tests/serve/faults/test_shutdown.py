"""A real server is told to leave while it is at work."""

import asyncio
import re
import signal

import pytest

from .conftest import (
    LONG,
    SHORT,
    Client,
    ServerProcess,
    ask,
    children_of,
    is_alive,
    request,
    run,
    streams,
    until_metric,
    wait_until,
)

PLAIN = "/v1/completions"
SOON_OVER = LONG | {"max_tokens": 40}
CUT_OFF = "the server was shut down before the answer had ended"


@pytest.fixture
def started():
    """Starts servers; in the end nothing of them may be left."""
    servers, families = [], []

    def start(*arguments):
        servers.append(ServerProcess(*arguments))
        families.append((servers[-1].pid, *children_of(servers[-1].pid)))
        return servers[-1]

    yield start
    for server, family in zip(servers, families, strict=True):
        server.clean_up()
        assert len(family) == 2
        wait_until(lambda family=family: not any(map(is_alive, family)), 5)


def test_a_drain(started):
    """Open requests end well, new ones are refused in words, idle connections hold nobody up."""
    server = started("--shutdown-timeout", "50")

    async def work():
        idle = await Client.connect(server.port)
        used = await Client.connect(server.port)
        await used.send(request("/ping"))
        await used.reader.readuntil(b"}")
        half = await Client.connect(server.port)
        await half.send(b"POST /v1/completions HTTP/1.1\r\ncontent-length: 9\r\n\r\n{")
        clients = await streams(server.port, 5, SOON_OVER)
        whole = asyncio.create_task(ask(server.port, PLAIN, SOON_OVER | {"stream": False}))
        await until_metric(server.port, "vllm:num_requests_running", 6)
        server.process.send_signal(signal.SIGTERM)
        while (await ask(server.port, "/health")).status != 503:
            await asyncio.sleep(0.01)
        refused = await ask(server.port, PLAIN, SHORT)
        assert (refused.status, refused.error["code"]) == (503, "shutting_down")
        assert refused.headers["connection"] == "close" and "retry-after" in refused.headers
        assert (await ask(server.port, "/ping")).status == 200
        answers = await asyncio.gather(*(client.end() for client in clients))
        assert all(answer.is_whole and not answer.error for answer in answers)
        assert (await whole).status == 200
        assert (await half.end()).error["code"] == "shutting_down"
        assert (await idle.end()).status == 0 and (await used.end()).status == 0

    run(work())
    assert server.process.wait(10) == 0
    (line,) = server.lines()  # a /health may be among them
    assert re.fullmatch("INFO shutting down: [78] requests have 50 s to end", line)


def test_a_second_signal_ends_it_at_once(started):
    server = started()

    async def work():
        clients = await streams(server.port, 5)
        clients[0].writer.transport.pause_reading()
        whole = asyncio.create_task(ask(server.port, PLAIN, LONG | {"stream": False}))
        await until_metric(server.port, "vllm:num_requests_running", 6)
        server.process.send_signal(signal.SIGINT)
        while (await ask(server.port, "/health")).status != 503:
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(whole, *(client.end() for client in clients[1:]))
        assert {answer.error["message"] for answer in answers} == {CUT_OFF}
        assert answers[0].status == 503 and all(answer.is_whole for answer in answers[1:])
        assert server.process.wait(10) == 128 + signal.SIGTERM
        clients[0].close()

    run(work())
    _, line = server.lines()
    assert re.fullmatch("WARNING [67] requests had not ended and were cut off", line)
