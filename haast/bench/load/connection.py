"""An HTTP connection that costs the client little: asyncio's transport, httptools' framing."""

import asyncio
from typing import Protocol, cast

import httptools


class ConnectionLostError(Exception):
    """The connection ended, or what came on it is no HTTP."""


class Sink(Protocol):
    """Takes an answer as it comes."""

    status: int

    def on_body(self, body: bytes) -> None:
        """The next bytes of the body, without their framing."""


class Connection(asyncio.Protocol):
    """Kept alive from request to request; answers one at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: _Answer | None = None
        self._why_lost: str | None = None

    @property
    def is_open(self) -> bool:
        return self._why_lost is None

    async def send(self, request: bytes, sink: Sink) -> None:
        """Send a request and return when its whole answer has gone to the sink.

        Raises ConnectionLostError. Cancelled while it waits, it closes the connection.
        """
        if self._why_lost is not None or self._transport is None:
            raise ConnectionLostError(self._why_lost or "not connected")
        self._answer = _Answer(sink, asyncio.get_running_loop().create_future())
        self._transport.write(request)
        try:
            keeps = await self._answer.done
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._answer = None
        if not keeps:
            self.close()

    def close(self) -> None:
        self._why_lost = self._why_lost or "closed"
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """asyncio calls this with what has come."""
        if self._answer is None:
            self.close()  # nothing was asked
            return
        try:
            self._answer.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"the server does not speak HTTP/1.1: {error}")
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and self._answer.ends_with_connection and error is None:
            self._answer.on_message_complete()
        self._lose(str(error) if error else "the server closed the connection")

    def _lose(self, why: str) -> None:
        self._why_lost = self._why_lost or why
        if self._answer is not None and not self._answer.done.done():
            self._answer.done.set_exception(ConnectionLostError(why))


class _Answer:
    """One answer, with the names that httptools calls."""

    def __init__(self, sink: Sink, done: "asyncio.Future[bool]") -> None:
        self.done = done
        self.on_body = sink.on_body
        self._sink = sink
        self._is_framed = False
        self.parser = httptools.HttpResponseParser(self)

    @property
    def ends_with_connection(self) -> bool:
        """Whether the head has come, and tells no length."""
        return self._sink.status != 0 and not self._is_framed

    def on_header(self, name: bytes, value: bytes) -> None:
        self._is_framed |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self._sink.status = self.parser.get_status_code()

    def on_message_complete(self) -> None:
        if not self.done.done():
            self.done.set_result(self.parser.should_keep_alive())
