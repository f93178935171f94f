"""A replica: an engine process and haast's own application over it, called by Ray Serve."""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator, MutableMapping
from contextlib import suppress
from typing import Any

from starlette.types import Message

from haast.config import EngineConfig
from haast.serve.app import make_app
from haast.serve.client import EngineClient, EngineDownError
from haast.serve.keeper import keep
from haast.serve.service import Settings, make_service

MAX_UNTAKEN = 256
"""Messages of an answer that wait to be taken; the answer then waits, and its tokens collect"""
NEWS_PER_S = 1500
"""What a replica gives to Ray at most, over all its answers: what a front and a proxy can pass on
(2,400 a second, with their client on two busy cores). Tokens that come meanwhile go together"""


class Replica:
    """One engine, in the process that Ray gave it; several of them are a deployment.

    An engine that falls is started again here, and by Ray, in another process, if that lasts.
    """

    _num_open = 0
    """answers that have not ended"""

    # Ray awaits it; the language asks for None.
    async def __init__(  # type: ignore[misc]
        self, config: EngineConfig, settings: Settings
    ) -> None:
        """Load the model. Raises HaastError."""
        from ray.serve import get_replica_context

        name = get_replica_context().replica_id.unique_id
        self._client = EngineClient(config)
        await self._client.start()
        service = make_service(self._client, settings, config.chat_template, name)
        self._exposition = service.exposition
        self._app = make_app(service)
        self._keeping = asyncio.create_task(keep(self._client, service.metrics.count_restart))

    async def answer(
        self, scope: MutableMapping[str, Any], body: bytes
    ) -> AsyncIterator[list[Message]]:
        """What the application answers to a request, as it comes: ASGI messages.

        Whoever stops taking them has gone away, as far as the application can tell.
        """
        messages: asyncio.Queue[Message] = asyncio.Queue(MAX_UNTAKEN)
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if parts:
                return parts.pop()
            return await asyncio.Future()  # who goes away cancels

        answering = asyncio.ensure_future(self._app(scope, receive, messages.put))
        self._num_open += 1
        try:
            while batch := await _next(messages, answering):
                yield _joined(batch)
                if not answering.done():
                    await asyncio.sleep(self._num_open / NEWS_PER_S)
            await answering
        finally:
            self._num_open -= 1
            answering.cancel()
            with suppress(asyncio.CancelledError):
                await answering

    async def metrics(self) -> bytes:
        """In Prometheus' text format."""
        return self._exposition.text()

    async def check_health(self) -> None:
        """Asked by Ray every now and then. Raises EngineDownError; after three it starts anew."""
        if not self._client.is_up:
            raise EngineDownError(str(self._client.stats().dead_because))

    async def __del__(self) -> None:
        """Awaited by Ray once the last answer has ended."""
        if hasattr(self, "_keeping"):  # the model was loaded
            self._keeping.cancel()
            await self._client.close()


async def _next(
    messages: "asyncio.Queue[Message]", answering: "asyncio.Future[None]"
) -> list[Message]:
    """All messages there are, at least one; none once the answer has ended."""
    if messages.empty() and not answering.done():
        coming = asyncio.ensure_future(messages.get())
        both: list[asyncio.Future[Any]] = [coming, answering]
        await asyncio.wait(both, return_when=FIRST_COMPLETED)
        if not coming.cancel():
            return [coming.result(), *_taken(messages)]
    return _taken(messages)


def _taken(messages: "asyncio.Queue[Message]") -> list[Message]:
    return [messages.get_nowait() for _ in range(messages.qsize())]


def _joined(messages: list[Message]) -> list[Message]:
    """Pieces of a body that follow each other as one."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else {}
        if last.get("type") == message["type"] == "http.response.body":
            body = last.get("body", b"") + message.get("body", b"")
            joined[-1] = {**message, "body": body}
        else:
            joined.append(message)
    return joined
