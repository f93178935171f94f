"""Streams of server-sent events, and clients that go away."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from haast.serve.errors import MENDABLE, ApiError, api_error

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"
CLIENT_GONE = 499
_PING = b": ping\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_encode = msgspec.json.Encoder().encode


def event(data: Any) -> bytes:
    """One event that carries a JSON document."""
    return b"data: %b\n\n" % _encode(data)


def failed(error: ApiError) -> bytes:
    """An error in a stream, and its end, as chat completions tell them."""
    return event(error.body) + DONE


def error_response(error: ApiError) -> Response:
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None if the client went away first; `work` is then cancelled."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request.receive))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        await _cancelled(task, gone)


class EventStream(Response):
    """Sends events as they come, and a comment when there was none for `ping_s` seconds.

    An error before the first event becomes an ordinary error response; a later one is told by
    `failure`. If the client goes away `events` is closed.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        ping_s: float,
        failure: Callable[[ApiError], bytes] = failed,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = list(_HEADERS)
        self._events = events
        self._ping_s = ping_s
        self._failure = failure
        self._is_started = False
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pump = asyncio.create_task(self._pump(scope, receive, send))
        gone = asyncio.create_task(_gone(receive))
        ping = asyncio.create_task(self._ping(send))
        try:
            await asyncio.wait([pump, gone], return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
        finally:
            await _cancelled(pump, gone, ping)

    async def _pump(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._events) as events:
                async for data in events:
                    await self._write(send, data)
            if not self._is_started:
                await self._write(send, b"")  # no event is no error
        except (*MENDABLE, ApiError) as error:
            told = api_error(error)
            if not self._is_started:
                self._is_started = True
                await error_response(told)(scope, receive, send)
                return
            await self._write(send, self._failure(told))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, data: bytes) -> None:
        self._sent_at = time.monotonic()
        if not self._is_started:
            self._is_started = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _ping(self, send: Send) -> None:
        self._sent_at = time.monotonic()
        while True:
            silent_s = time.monotonic() - self._sent_at
            await asyncio.sleep(self._ping_s - silent_s)
            if time.monotonic() - self._sent_at >= self._ping_s:
                await self._write(send, _PING)


async def _gone(receive: Receive) -> None:
    """Until the client has closed the connection; the body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
