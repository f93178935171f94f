"""A server that plays scripts: to test clients of streams, and to see what they cost."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

END = b"0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
Item = bytes | float | None
"""What comes next: bytes, nothing for so many seconds, or the end of the connection"""
Script = Callable[[str, bytes], Sequence[Item]]
"""Path and body of a request -> what is answered"""


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(**fields) -> bytes:
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


def token_event(number: int) -> bytes:
    """An event as vLLM and haast write it."""
    choice = {"index": 0, "text": f" word{number}", "logprobs": None, "finish_reason": None}
    head = {"id": "cmpl-0123456789abcdef", "object": "text_completion", "created": 1764000000}
    return event(**head, model="openai/gpt-oss-20b", choices=[choice], usage=None)


def usage_event(num_tokens: int, cached: int = 0) -> bytes:
    usage = {"prompt_tokens": 5, "completion_tokens": num_tokens, "total_tokens": num_tokens + 5}
    return event(choices=[], usage=usage | {"prompt_tokens_details": {"cached_tokens": cached}})


def stream(num_tokens: int, pause_s: float | None = None) -> list[Item]:
    """A whole answer: an event a token, and a write an event."""
    items: list[Item] = [HEAD]
    for number in range(num_tokens):
        items.append(chunk(token_event(number)))
        items += [] if pause_s is None else [pause_s]
    return [*items, chunk(usage_event(num_tokens)), chunk(DONE) + END]


def whole(body: dict, status: str = "200 OK") -> list[Item]:
    """An answer in one piece."""
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    return [head.encode() + b"\r\n\r\n" + data]


class Scripted:
    """Answers each request as the script says.

    bodies            of the requests that came
    num_connections   that were made
    most_at_once      requests that were open at the same time
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.bodies: list[bytes] = []
        self.heads: list[str] = []
        self.num_connections = self.num_open = self.most_at_once = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await self.serve(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        goes_on = True
        while goes_on:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = head.lower().partition("content-length:")[2].split("\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            self.heads.append(head)
            self.bodies.append(body)
            self.num_open += 1
            self.most_at_once = max(self.most_at_once, self.num_open)
            try:
                goes_on = await self.answer(writer, self.script(head.split()[1], body))
            finally:
                self.num_open -= 1

    async def answer(self, writer: asyncio.StreamWriter, items: Sequence[Item]) -> bool:
        for item in items:
            if item is None:
                return False
            if isinstance(item, bytes):
                writer.write(item)
            else:
                await asyncio.sleep(item)
        return True


@contextmanager
def scripted(script: Script) -> Iterator[tuple[str, Scripted]]:
    """(URL, Scripted) of a server in a thread of its own."""
    played, ready, found = Scripted(script), threading.Event(), {}

    async def serve() -> None:
        found["loop"], found["stop"] = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(played.handle, "127.0.0.1", 0)
        found["port"] = server.sockets[0].getsockname()[1]
        ready.set()
        await found["stop"].wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(20)
    try:
        yield f"http://127.0.0.1:{found['port']}", played
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(20)
        assert not thread.is_alive()
