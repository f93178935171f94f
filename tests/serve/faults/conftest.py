"""`haast serve` over haast-tiny in a process of its own, and clients that may do anything."""

import asyncio
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import is_alive, read_or_none

BATCH_SIZE = 64
MANY_FILES = 4096
LONG = {"prompt": "Hello", "stream": True, "temperature": 0, "ignore_eos": True, "max_tokens": 500}
SHORT = LONG | {"max_tokens": 5}


class ServerProcess:
    """Started with the arguments; ready when made.

    folder  for its temporary files, and for its log
    """

    def __init__(self, *arguments: str, devices: str = "cpu") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))  # paths of sockets must be short
        self.log = log = self.folder / "log"
        command = [sys.executable, "-m", "haast", "serve", "--host", "127.0.0.1", "--port", "0"]
        command += [
            "--devices",
            devices,
            "--max-length",
            "640",
            "--max-batch-size",
            str(BATCH_SIZE),
        ]
        with log.open("w") as stderr:
            environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.folder)}
            self.process = subprocess.Popen([*command, *arguments], stderr=stderr, env=environment)
        try:
            wait_until(lambda: "haast: ready at" in log.read_text() or self.has_ended, 60)
            assert not self.has_ended, log.read_text()
            self.port = listening_port(self.pid)
        except BaseException:
            self.clean_up()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def engine_pid(self) -> int:
        """The only child there is."""
        (pid,) = children_of(self.pid)
        return pid

    def num_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def lines(self) -> list[str]:
        """Of the log, after the one that tells that it is ready."""
        _, ready, rest = self.log.read_text().partition("haast: ready at")
        assert ready
        return [re.sub(r"^\S+ \S+ ", "", line) for line in rest.split("\n")[1:] if line]

    def clean_up(self) -> None:
        """Whatever state it is in; fails if it has left more behind than its log."""
        self.process.kill()
        self.process.wait(10)
        left = [path for path in self.folder.iterdir() if path != self.log]
        shutil.rmtree(self.folder)
        assert left == []


def listening_port(pid: int) -> int:
    """Of the one socket that a process listens on."""
    inodes = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(file)))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (port,) = {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes}
    return port


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [
        c for task in tasks for c in map(int, (read_or_none(task) or "").split()) if is_alive(c)
    ]


def wait_until(holds, timeout_s: float = 20.0) -> float:
    """Seconds until it did."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < timeout_s, "waited in vain"
        time.sleep(0.02)
    return time.monotonic() - started


class Answer:
    """What came over a connection: status, headers, the rest as it was."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1]) if first else 0
        self.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}

    @property
    def error(self) -> dict:
        """Of an error body or of the last event of a stream."""
        found = re.findall(rb'\{"error":.*\}', self.body)
        return json.loads(found[-1])["error"] if found else {}

    @property
    def is_whole(self) -> bool:
        """Whether it is a stream that came to an end, as it should be or with an error."""
        return self.body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def request(path: str, body=None, method: str | None = None, *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")
    lines = [f"{method} {path} HTTP/1.1", "host: t", f"content-length: {len(data)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + data


class Client:
    """A connection; what it receives is read only when asked for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = b""

    @classmethod
    async def connect(cls, port: int, limit: int = 1 << 16) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=limit))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def begin(self, body, path: str = "/v1/completions") -> "Client":
        """Ask, and wait for the first event of the stream."""
        await self.send(request(path, body, None, "connection: close"))
        while b"data: " not in self.received:
            data = await self.reader.read(1 << 16)
            assert data, self.received
            self.received += data
        return self

    async def end(self) -> Answer:
        """All that is still sent until the connection is closed."""
        self.received += await self.reader.read(-1)
        self.close()
        await self.writer.wait_closed()
        return Answer(self.received)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Leave without a farewell."""
        self.writer.transport.abort()


async def ask(port: int, path: str, body=None, method: str | None = None, *headers) -> Answer:
    """A request on a connection of its own."""
    client = await Client.connect(port)
    try:
        await client.send(request(path, body, method, "connection: close", *headers))
        return await client.end()
    finally:
        client.close()


async def streams(port: int, count: int, body=LONG) -> list[Client]:
    """So many clients, in the middle of their streams."""
    clients = await asyncio.gather(*(Client.connect(port) for _ in range(count)))
    return list(await asyncio.gather(*(client.begin(body) for client in clients)))


async def metric(port: int, name: str) -> float:
    text = (await ask(port, "/metrics")).body.decode()
    (value,) = re.findall(rf"^{name}(?:{{.*}})? (\S+)\r?$", text, re.M)
    return float(value)


async def until_metric(port: int, name: str, value: float, patience_s: float = 20.0) -> float:
    """Seconds until it was so."""
    started = time.monotonic()
    while await metric(port, name) != value:
        assert time.monotonic() - started < patience_s, (name, await metric(port, name))
        await asyncio.sleep(0.05)
    return time.monotonic() - started


def run(work):
    """A coroutine to its end, or the end of patience."""
    return asyncio.run(asyncio.wait_for(work, 60))


@pytest.fixture(scope="package")
def server() -> Iterator[ServerProcess]:
    """One that each test leaves as it found it; see `unharmed`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(MANY_FILES, hard)), hard))
    server = ServerProcess()
    yield server
    server.process.send_signal(signal.SIGTERM)
    try:
        assert server.process.wait(20) == 0
    finally:
        server.clean_up()


@pytest.fixture
def unharmed(server):
    """After the test the server answers, runs nothing, holds no page and as many files as before,
    and has one child.
    """
    run(ask(server.port, "/v1/completions", SHORT))
    before = server.num_files()
    yield server
    assert run(ask(server.port, "/v1/completions", SHORT)).is_whole
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting"):
        run(until_metric(server.port, name, 0))
    assert run(metric(server.port, "vllm:kv_cache_usage_perc")) == 0
    wait_until(lambda: server.num_files() <= before, 10)
    assert is_alive(server.engine_pid)
    assert "Traceback" not in server.log.read_text()
