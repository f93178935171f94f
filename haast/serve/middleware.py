"""Around every request: who may ask, and under which id."""

import re
import secrets
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from haast.serve.errors import ApiError
from haast.serve.sse import error_response

OPEN_PATHS = frozenset({"/health", "/ping", "/version", "/metrics", "/", "/docs"})
"""Probes and scrapers hold no key; the pages ask for one"""
_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class ApiKeys:
    """Answers 401 to who gives none of the keys as `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._knows(scope):
            error = ApiError(
                401,
                "Incorrect API key provided; send it as Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
            await error_response(error)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        # compares with all of them, so that the time taken tells nothing
        matches = [secrets.compare_digest(key.strip(), known) for known in self._keys]
        return scheme.lower() == b"bearer" and any(matches)


class TrailingSlashes:
    """Takes `/v1/models/` for `/v1/models`, instead of sending the client there."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = scope["path"].rstrip("/") or "/"
        await self.app(scope, receive, send)


class RequestIds:
    """Sends the client's x-request-id back, or one of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        name = given if _ID.fullmatch(given) else secrets.token_hex(16).encode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", name)]
            await send(message)

        await self.app(scope, receive, send_with_id)
