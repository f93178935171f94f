"""Reading a request: its body, its service, its name."""

import secrets
from typing import TypeVar, cast

from starlette.requests import Request

from haast.serve.errors import ApiError
from haast.serve.protocol import Body, parse
from haast.serve.service import Service

B = TypeVar("B", bound=Body)
MAX_BODY_BYTES = 32 << 20
"""Text of the longest context in any script, with room for a JSON schema a tool"""
IN_A_THREAD = 32 << 10
"""Bodies from this size on are rendered in a thread, so that streams do not wait: about 5 ms"""


def service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


async def read_body(request: Request, kind: type[B]) -> B:
    """The parsed body, for a model that is served. Raises ApiError 400, 404 or 413."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ApiError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
        parts.append(part)
    body = parse(kind, b"".join(parts))
    request.state.body_bytes = size
    service_of(request).check_model(body.model)
    return body


def is_large(request: Request) -> bool:
    return bool(request.state.body_bytes >= IN_A_THREAD)


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(12)}"
