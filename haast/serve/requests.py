"""Reading a request: its body, its service, its name."""

import asyncio
import secrets
from typing import TypeVar, cast

from starlette.requests import Request

from haast.serve.errors import ApiError
from haast.serve.gate import CLOSED, Gate
from haast.serve.protocol import Body, parse
from haast.serve.service import Service

B = TypeVar("B", bound=Body)
MAX_BODY_BYTES = 32 << 20
"""Text of the longest context in any script, with room for a JSON schema a tool"""
MAX_BODIES_BYTES = 1 << 30
"""Of all bodies that are being received"""
TOO_MANY = ApiError(
    503,
    "too many large bodies are being received",
    kind="service_unavailable_error",
    headers={"retry-after": "1"},
)
BODY_S = 60.0
"""How long a body may take to come"""
IN_A_THREAD = 32 << 10
"""Bodies from this size on are rendered in a thread, so that streams do not wait: about 5 ms"""


def service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


async def read_body(request: Request, kind: type[B]) -> B:
    """The parsed body, for a model that is served. Raises ApiError 400, 404, 408, 413, 415 or 503.

    What its content type is called does not matter: many clients send JSON under curl's default.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ApiError(415, f"content-encoding {encoding[:100]!r} is not supported")
    gate = service_of(request).gate
    try:
        async with asyncio.timeout(BODY_S) as limit:
            gate.bodies.add(limit)
            data = await _read(request, gate)
    except TimeoutError:
        if gate.is_closed:
            raise CLOSED from None
        message = f"the body did not come within {BODY_S:g} s"
        raise ApiError(408, message, headers={"connection": "close"}) from None
    finally:
        gate.bodies.discard(limit)
    body = parse(kind, data)
    request.state.body_bytes = len(data)
    service_of(request).check_model(body.model)
    return body


async def _read(request: Request, gate: Gate) -> bytes:
    parts, size = [], 0
    length = request.headers.get("content-length", "")
    if length.isdecimal():
        _check_size(int(length))  # before it comes
    try:
        async for part in request.stream():
            size += len(part)
            gate.body_bytes += len(part)
            _check_size(size)
            if gate.body_bytes > MAX_BODIES_BYTES:
                raise TOO_MANY
            parts.append(part)
        return b"".join(parts)
    finally:
        gate.body_bytes -= size


def _check_size(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise ApiError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")


def is_large(request: Request) -> bool:
    return bool(request.state.body_bytes >= IN_A_THREAD)


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(12)}"
