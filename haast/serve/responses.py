"""Answers in one piece."""

from typing import Any

import msgspec
from starlette.responses import Response

from haast.serve.sse import CLIENT_GONE


def document(body: dict[str, Any] | None) -> Response:
    """A JSON response; None = the client went away and reads it no more."""
    if body is None:
        return Response(status_code=CLIENT_GONE)
    return Response(msgspec.json.encode(body), media_type="application/json")
