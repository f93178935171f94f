"""Gate: how many requests are open, and whether more may come."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from haast.serve.errors import ApiError
from haast.serve.sse import error_response

STAYS_OPEN = frozenset({"/ping", "/version", "/metrics"})
"""Say nothing of whether requests are taken, as /health does"""
BODY_S = 1.0
"""How long a body may still take to come once the gate is closed"""
CLOSED = ApiError(
    503,
    "the server is shutting down",
    kind="service_unavailable_error",
    code="shutting_down",
    headers={"retry-after": "1"},
)


class Gate:
    """Counts requests; once closed it refuses further ones, and connections end with their answer.

    num_open    requests whose answers have not ended
    bodies      the time that each body has that is still to come
    body_bytes  what has come of these
    """

    def __init__(self) -> None:
        self.num_open = 0
        self.is_closed = False
        self.bodies: set[asyncio.Timeout] = set()
        self.body_bytes = 0
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def close(self) -> None:
        """Refuse requests from now on."""
        self.is_closed = True
        for limit in self.bodies:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time() + BODY_S)

    async def wait_empty(self) -> None:
        """Until no request is open."""
        await self._is_empty.wait()

    def enter(self) -> None:
        self.num_open += 1
        self._is_empty.clear()

    def leave(self) -> None:
        self.num_open -= 1
        if not self.num_open:
            self._is_empty.set()


class Gated:
    """The application behind a gate."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app = app
        self.gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        gate = self.gate
        is_refused = gate.is_closed and scope["path"] not in STAYS_OPEN

        async def send_last(message: Message) -> None:
            if gate.is_closed and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        gate.enter()
        try:
            app = error_response(CLOSED) if is_refused else self.app
            await app(scope, receive, send_last)
        finally:
            gate.leave()
