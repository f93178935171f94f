"""Clients that send nonsense, nothing, or read nothing, against a real server."""

import asyncio
import resource

import pytest

from .conftest import LONG, SHORT, Client, ask, request, run, streams, until_metric

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]
NUM_IDLE = 1000
DEEP = b'{"a":' * 100_000


def chat(**body) -> dict:
    return {"messages": HELLO, "max_tokens": 2} | body


BODIES = {
    "no JSON": (b"{", 400),
    "too deep": (DEEP, 400),
    "deep in a message": (b'{"messages": [{"role": "user", "content": ' + DEEP, 400),
    "no UTF-8": (b'{"messages": [{"role": "user", "content": "\xff"}]}', 400),
    "a lone surrogate": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
    "NaN": (b'{"messages": [], "temperature": NaN}', 400),
    "a huge number": (b'{"messages": [], "seed": 1' + b"0" * 5000 + b"}", 400),
    "a form": (b"messages=hello&model=tiny", 400),
    "too long": (chat(messages=[{"role": "user", "content": "w " * 50_000}]), 400),
    "too much": (chat(max_tokens=1 << 40), 400),
    "too many": (chat(n=1 << 40), 400),
}


def nested(depth: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return {"type": "function", "function": {"name": "f", "parameters": schema}}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(server, name):
    body, status = BODIES[name]
    answer = run(ask(server.port, CHAT, body))
    assert answer.status == status, answer.body
    assert answer.error["message"] and "\n" not in answer.error["message"]


@pytest.mark.parametrize("depth, status", [(3, 200), (60, 400), (200, 400)])
def test_deep_tools(server, depth, status):
    answer = run(ask(server.port, f"{CHAT}/render", chat(tools=[nested(depth)])))
    assert answer.status == status, answer.body[:300]


RAW = {
    "nonsense": (b"hello\r\n\r\n", 400),
    "no path": (b"GET\r\n\r\n", 400),
    "a path in Latin-1": (b"GET /\xff HTTP/1.1\r\nhost: t\r\n\r\n", 400),
    "an endless header": (b"GET /ping HTTP/1.1\r\na: " + b"b" * 200_000, 431),
    "an endless path": (b"GET /" + b"b" * 200_000, 431),
    "a body announced too large": (
        b"POST /v1/completions HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n",
        413,
    ),
    "a body of unknown length that is too large": (
        b"POST /v1/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"2000001\r\n"
        + b" " * 0x2000001
        + b"\r\n0\r\n\r\n",
        413,
    ),
    "a compressed body": (request(PLAIN, b"x", None, "content-encoding: gzip"), 415),
    "another protocol": (
        b"GET /ping HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        200,
    ),
    "OPTIONS": (request(PLAIN, None, "OPTIONS"), 405),
    "HEAD": (request("/health", None, "HEAD"), 200),
    "a slash at the end": (request("/v1/models/"), 200),
    "nothing there": (request("/v1/nothing"), 404),
}


@pytest.mark.parametrize("name", RAW)
def test_raw_requests(unharmed, name):
    data, status = RAW[name]

    async def work():
        client = await Client.connect(unharmed.port)
        await client.send(data)
        first = await client.reader.readline()
        client.close()
        return first

    assert run(work()).startswith(b"HTTP/1.1 %d " % status)


def test_many_idle_connections_leave_others_alone(unharmed):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < NUM_IDLE + 100:
        pytest.skip("this machine does not allow so many open files")

    async def work():
        idle = [await Client.connect(unharmed.port) for _ in range(NUM_IDLE)]
        for client in idle[::4]:
            await client.send(b"POST /v1/completions HTTP/1.1\r\ncontent-le")
        for client in idle[1::4]:
            await client.send(b"POST /v1/completions HTTP/1.1\r\ncontent-length: 9\r\n\r\n{")
        answers = await asyncio.gather(*(ask(unharmed.port, PLAIN, SHORT) for _ in range(8)))
        assert all(answer.is_whole and not answer.error for answer in answers)
        for client in idle:
            client.close()

    run(work())


def test_clients_that_read_nothing_leave_others_alone(unharmed):
    async def work():
        deaf = await streams(unharmed.port, 4, LONG | {"max_tokens": 40})
        for client in deaf:
            client.writer.transport.pause_reading()
        answer = await ask(unharmed.port, PLAIN, SHORT)
        assert answer.is_whole and not answer.error
        await until_metric(unharmed.port, "vllm:num_requests_running", 0, 60)  # to their ends
        for client in deaf:
            client.writer.transport.resume_reading()
        whole = [await client.end() for client in deaf]
        assert all(answer.is_whole and not answer.error for answer in whole)

    run(work())


def test_a_pipeline_is_answered_in_order(unharmed):
    async def work():
        client = await Client.connect(unharmed.port)
        last = request("/v1/nothing", None, None, "connection: close")
        await client.send(request(PLAIN, SHORT) + request("/ping") + last)
        body = (await client.end()).body
        assert body.index(b"[DONE]") < body.index(b'{"status":"ok"}') < body.index(b"404 Not Found")

    run(work())


def test_a_pipeline_that_nobody_reads_any_more_is_cancelled(unharmed):
    async def work():
        client = await Client.connect(unharmed.port)
        await client.send(request(PLAIN, LONG) * 3)
        await client.reader.readuntil(b"data: ")
        client.reset()
        await until_metric(unharmed.port, "vllm:num_requests_running", 0, 5)

    run(work())


def test_a_client_that_is_gone_without_a_word_is_asked(unharmed):
    """The kernel's timer of an idle connection is that of keep-alive probes, within 30 s."""

    async def work():
        client = await Client.connect(unharmed.port)
        await client.send(request("/ping"))
        await client.reader.readuntil(b"}")
        own = client.writer.get_extra_info("sockname")[1]
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table]
        (timer,) = [
            row[5]
            for row in rows[1:]
            if row[1].endswith(f":{unharmed.port:04X}") and row[2].endswith(f":{own:04X}")
        ]
        kind, _, left = timer.partition(":")
        assert kind == "02" and 0 < int(left, 16) <= 3000
        client.close()

    run(work())
