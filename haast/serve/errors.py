"""What goes wrong -> OpenAI's error body and the HTTP status."""

import re
from collections.abc import Mapping
from typing import Any

from haast.engine.request import QueueFullError, RequestError, SamplingError
from haast.errors import HaastError
from haast.harmony import ConversationError, TemplateError
from haast.serve.messages import EngineDownError

INVALID = "invalid_request_error"
_PATH = re.compile(r"(messages|tools)(\[\d+\]|\.\w+)*|reasoning_effort")
MENDABLE = (HaastError, EngineDownError)
"""Errors of the engine and of prompts; `api_error` knows what they mean to a client"""


class ApiError(Exception):
    """An answer with an error body.

    kind   OpenAI's `type`
    param  the field of the request that is wrong
    code   a name for programs
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI's API writes it."""
        fields = {"message": self.message, "type": self.kind}
        return {"error": {**fields, "param": self.param, "code": self.code}}


def invalid(param: str, message: str, code: str | None = None) -> ApiError:
    """A 400 that names the field."""
    return ApiError(400, message, param=param, code=code)


def api_error(error: Exception) -> ApiError:
    """What an error of the engine or of a prompt means to the client."""
    text = str(error)
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFullError):
        headers = {"retry-after": "1"}
        return ApiError(429, text, kind="rate_limit_error", code="queue_full", headers=headers)
    if isinstance(error, EngineDownError):
        headers = {"retry-after": str(error.retry_s)}
        kind = "service_unavailable_error"
        return ApiError(503, text, kind=kind, code="engine_down", headers=headers)
    if isinstance(error, (ConversationError, TemplateError)):
        match = _PATH.match(text)
        return ApiError(400, text, param=match[0] if match else "messages")
    assert isinstance(error, (RequestError, SamplingError, HaastError)), error
    return ApiError(400, text)
