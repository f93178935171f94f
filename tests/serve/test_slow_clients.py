"""What clients may hold of a server: a listening one over a FakeClient, in this process."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest

from haast.serve import connection, requests
from haast.serve.app import make_app
from haast.serve.server import Listening, Server, bound
from haast.serve.service import Settings, make_service

from .api.spoken import TOKENIZER
from .conftest import run, until
from .fake_client import FakeClient, tokens

STREAM = json.dumps({"prompt": "Hello", "stream": True, "max_tokens": 600}).encode()
POST = b"POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n"
EVENT = [5] * 1000
MANY = 20_000
LONG_TOKEN = 1405


@asynccontextmanager
async def serving(script, stuck_s=60):
    """(service, port, server, its task)"""
    service = make_service(FakeClient(script), Settings(models=("tiny",)))
    with bound(Listening("127.0.0.1", 0, stuck_s=stuck_s)) as listener:
        port = listener.getsockname()[1]
        ready = asyncio.Event()
        server = Server(make_app(service), None, ready.set)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await ready.wait()
        yield service, port, server, task
        await server.end(task)
    assert not server.server_state.connections and not server.server_state.tasks


async def connect(port, receive_bytes=None):
    """A socket that reads only when told to."""
    plain = socket.socket()
    if receive_bytes:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
    return plain


async def send(plain, data):
    await asyncio.get_running_loop().sock_sendall(plain, data)


async def receive(plain):
    """All that comes until the server closes."""
    parts = []
    while part := await asyncio.get_running_loop().sock_recv(plain, 1 << 20):
        parts.append(part)
    plain.close()
    return b"".join(parts)


def test_who_reads_nothing_is_sent_little_and_is_cut_off_in_the_end():
    told = []

    def script(prompt, params):
        for _ in range(MANY):
            told.append(None)
            yield tokens(*EVENT)
            yield 0.0

    async def work():
        async with serving(script, stuck_s=1) as (service, port, *_):
            engine = service.client
            deaf = await connect(port, 4096)
            await send(deaf, POST % len(STREAM) + STREAM)
            await until(lambda: engine.num_open == 1 and len(told) > 10)
            count = 0
            while count != len(told):  # buffers of the kernel fill
                count = len(told)
                await asyncio.sleep(0.2)
            assert count < MANY / 2
            await until(lambda: engine.num_open == 0)
            assert engine.num_cancelled == 1 and len(told) < MANY / 2
            deaf.close()

    run(work())


def test_a_server_that_leaves_lets_a_slow_client_read_its_answer():
    """More than the kernel takes, so that the server still holds some of it."""
    body = json.dumps({"tokens": [LONG_TOKEN] * 400_000}).encode()
    num_bytes = 400_000 * len(TOKENIZER.token_bytes(LONG_TOKEN))
    assert num_bytes > 6e6

    async def work():
        async with serving(lambda *_: []) as (service, port, server, task):
            slow = await connect(port, 4096)
            await send(slow, POST.replace(b"v1/completions", b"detokenize") % len(body) + body)
            await until(lambda: server.server_state.total_requests == 1)
            assert service.gate.num_open == 0
            leaving = asyncio.create_task(server.leave(task))
            await asyncio.sleep(0.5)
            assert not leaving.done()
            _, _, answer = (await receive(slow)).partition(b"\r\n\r\n")
            await leaving
            assert len(json.loads(answer)["prompt"]) == num_bytes

    run(work())


def test_what_accepted_sockets_inherit():
    with bound(Listening("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.listen()
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            for option, value in (
                (socket.TCP_KEEPIDLE, 30),
                (socket.TCP_KEEPINTVL, 10),
                (socket.TCP_USER_TIMEOUT, 60_000),
            ):
                assert accepted.getsockopt(socket.IPPROTO_TCP, option) == value


def test_too_many_connections(monkeypatch):
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 3)

    async def work():
        async with serving(lambda *_: []) as (_, port, *_):
            idle = [await connect(port) for _ in range(3)]
            refused = await receive(await connect(port))
            assert refused.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"retry-after: 1" in refused
            error = json.loads(refused.split(b"\r\n\r\n")[1])["error"]
            assert error["message"] == "too many connections are open"
            idle.pop().close()
            while True:
                again = await connect(port)
                await send(again, b"GET /ping HTTP/1.0\r\n\r\n")
                if b" 200 " in await receive(again):
                    break
            for plain in idle:
                plain.close()

    run(work())


@pytest.mark.parametrize("begun", [b"", b"GET /ping HT", b"GET /ping HTTP/1.1\r\na: b\r\n"])
def test_a_head_that_does_not_come(monkeypatch, begun):
    monkeypatch.setattr(connection, "KEEP_ALIVE_S", 0.2)

    async def work():
        async with serving(lambda *_: []) as (_, port, *_):
            plain = await connect(port)
            await send(plain, begun)
            assert await receive(plain) == b""

    run(work())


def test_an_answer_may_take_longer_than_a_head(monkeypatch):
    monkeypatch.setattr(connection, "KEEP_ALIVE_S", 0.1)

    async def work():
        script = lambda *_: [tokens(5), 0.5, tokens(5, end="length")]  # noqa: E731
        async with serving(script) as (_, port, *_):
            plain = await connect(port)
            # the head of a second request begins and does not go on
            await send(plain, POST % len(STREAM) + STREAM + b"GET /ping HT")
            answer = await receive(plain)
            assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")

    run(work())


def test_a_body_is_no_part_of_the_head_behind_it(monkeypatch):
    monkeypatch.setattr(connection, "MAX_HEAD_BYTES", 200)

    async def work():
        script = lambda *_: [tokens(5), 0.2, tokens(5, end="length")]  # noqa: E731
        async with serving(script) as (service, port, *_):
            plain = await connect(port)
            body = STREAM + b" " * 500
            await send(plain, POST % len(body) + body + b"GET /ping HT")
            await until(lambda: service.client.num_open == 1)
            await send(plain, b"TP/1.1\r\nconnection: close\r\n\r\n")
            answer = await receive(plain)
            assert b"[DONE]" in answer and answer.endswith(b'{"status":"ok"}')
            plain = await connect(port)
            await send(plain, b"GET /ping HTTP/1.1\r\n\r\nGET /ping HTTP/1.1\r\na: ")
            answer = b""
            while b'"ok"}' not in answer:
                answer += await asyncio.get_running_loop().sock_recv(plain, 1000)
            await send(plain, b"b" * 400)
            answer += await receive(plain)
            assert answer.index(b"HTTP/1.1 200 ") < answer.index(b"HTTP/1.1 431 ")

    run(work())


def test_a_body_that_does_not_come(monkeypatch):
    monkeypatch.setattr(requests, "BODY_S", 0.1)

    async def work():
        async with serving(lambda *_: []) as (service, port, *_):
            plain = await connect(port)
            await send(plain, POST % 9 + b"{")
            answer = await receive(plain)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"the body did not come within 0.1 s" in answer
            assert service.gate.num_open == 0 and not service.gate.bodies

    run(work())
