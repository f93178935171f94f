"""Connection: uvicorn's, with bounds on what a client may hold of the server before it asks."""

import asyncio
import resource
from collections import deque
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from haast.serve.errors import ApiError

KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that none sends into one just closed; also how
long the head of a request may take"""
MAX_HEAD_BYTES = 64 << 10
MAX_CONNECTIONS = 16_384
"""About 10 kB each"""
RESERVED_FILES = 64
"""Of those that the process may open: what is not a connection"""
_REASONS = {431: b"Request Header Fields Too Large", 503: b"Service Unavailable"}


def max_connections() -> int:
    """What the limit on open files leaves for connections."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if limit < 0 else min(MAX_CONNECTIONS, limit - RESERVED_FILES)


def raise_file_limit() -> None:
    """To what MAX_CONNECTIONS need, if this process may; it is often 1024."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVED_FILES
    if 0 <= limit < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (min(wanted, most) if most >= 0 else wanted, most)
        )


class Connection(HttpToolsProtocol):
    """Refuses connections that are too many, and heads of requests that are too large or late.

    When it is lost all its open requests are told, while uvicorn tells the last one of a pipeline.
    """

    _late: asyncio.TimerHandle | None = None
    """runs while a head is awaited or read"""
    _num_head_bytes = 0
    _num_read = 0
    """requests whose bodies have come"""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._requests: deque[RequestResponseCycle] = deque()

    @property
    def _is_answering(self) -> bool:
        return any(not request.response_complete for request in self._requests)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is here; it has KEEP_ALIVE_S to ask for something."""
        super().connection_made(transport)
        if len(self.connections) > max_connections():
            self._refuse(503, "too many connections are open")
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or was told to go."""
        self._head_is_read()
        for request in self._requests:
            if not request.response_complete:
                request.disconnected = True
                request.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A piece of what the client sends; counted until its headers are complete, but for a piece
        in which the request before ends.
        """
        count = self._num_read
        super().data_received(data)
        if self._late is not None and count == self._num_read:
            self._num_head_bytes += len(data)
            if self._num_head_bytes > MAX_HEAD_BYTES:
                limit = f"{MAX_HEAD_BYTES} bytes"
                self._refuse(431, f"the request line and headers are larger than {limit}")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        """A request begins, perhaps while the one before it is still answered."""
        self._head_is_read()
        super().on_headers_complete()
        while self._requests and self._requests[0].response_complete:
            self._requests.popleft()
        self._requests.append(self.cycle)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._num_read += 1

    def _await_head(self) -> None:
        self._num_head_bytes = 0
        if self._late is None:
            self._late = self.loop.call_later(KEEP_ALIVE_S, self._give_up)

    def _head_is_read(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        if not self._is_answering:
            self.transport.close()
        else:  # the head is that of the next request
            self._late = self.loop.call_later(KEEP_ALIVE_S, self._give_up)

    def _refuse(self, status: int, message: str) -> None:
        """Answer without the application, and close."""
        kind = "invalid_request_error" if status < 500 else "service_unavailable_error"
        body = msgspec.json.encode(ApiError(status, message, kind=kind).body)
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\nconnection: close\r\n"
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        length = b"content-length: %d\r\n\r\n" % len(body)
        self._head_is_read()
        if not self._is_answering:
            self.transport.write(head % (status, _REASONS[status]) + retry + length + body)
        self.transport.close()
