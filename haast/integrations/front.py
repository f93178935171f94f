"""The one endpoint: sends each request to a replica, and what that answers to the client."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from haast.integrations.session import session_of
from haast.serve.endpoints import METRICS_TYPE
from haast.serve.errors import ApiError
from haast.serve.requests import MAX_BODY_BYTES
from haast.serve.responses_api.run import SESSION
from haast.serve.sse import error_response, failed

ATTEMPTS = 3
"""Replicas that a request is sent to if one after the other dies before it answers"""
UNAVAILABLE = "service_unavailable_error"
_PASSED = ("type", "http_version", "method", "path", "raw_path", "query_string", "headers")
_PASSED_TOO = ("scheme", "client", "server", "root_path")
_log = logging.getLogger(__name__)


class Front:
    """An ASGI application that has no engine; of several each sends alike, so any may be asked.

    replicas  Ray Serve's handle of the deployment of `haast.integrations.replica.Replica`
    """

    def __init__(self, replicas: Any) -> None:
        self._replicas = replicas
        self._app = Starlette(
            routes=[Route("/metrics", self._metrics), Mount("/", app=self._forward)]
        )

    def __serve_build_asgi_app__(self) -> Starlette:
        """What `ray.serve.ingress` asks for."""
        return self._app

    async def _metrics(self, _request: Request) -> Response:
        """Of all replicas that answer; `engine` tells them apart."""
        from ray.serve.exceptions import DeploymentUnavailableError

        try:
            told = await self._replicas.broadcast("metrics").results_async(return_exceptions=True)
        except DeploymentUnavailableError as error:
            return error_response(_down(error.message))
        texts = [text for text in told if isinstance(text, bytes)]  # others have just died
        return PlainTextResponse(merged(texts), media_type=METRICS_TYPE)

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(send)
        try:
            body = await _read(receive)
            if body is not None:
                await self._ask(scope, body, answer)
        except ApiError as error:
            await answer.fail(error, scope, receive)

    async def _ask(self, scope: Scope, body: bytes, answer: "_Answer") -> None:
        """Raises ApiError if no replica has answered to the end.

        A client that goes away cancels this; Ray then cancels what was asked of a replica.
        """
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

        session = session_of(scope["path"], dict(scope["headers"]), body)
        passed = {name: scope[name] for name in _PASSED}
        passed |= {name: scope.get(name) for name in _PASSED_TOO} | {SESSION: session}
        handle = self._replicas.options(session_id=session, stream=True)
        for _ in range(ATTEMPTS):
            try:
                async for messages in handle.answer.remote(passed, body):
                    await answer.take(messages)
                return
            except RayActorError as error:
                _log.error("a replica died while it answered: %s", error)
                if answer.is_started:
                    break
            except BackPressureError as error:
                raise _busy(error) from None
            except DeploymentUnavailableError as error:
                raise _down(error.message) from None
        raise _down("the replica that answered died; ask again")


class _Answer:
    """What has been sent to the client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_started = False

    async def take(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.is_started = True
            if message["type"] == "http.response.start":
                kept = [header for header in message["headers"] if header[0] != b"x-request-id"]
                message["headers"] = kept  # Ray sends it back, too
            await self._send(message)

    async def fail(self, error: ApiError, scope: Scope, receive: Receive) -> None:
        """Tell the error: as the answer, or as the last event of a stream."""
        if not self.is_started:
            await error_response(error)(scope, receive, self._send)
            return
        await self._send({"type": "http.response.body", "body": failed(error), "more_body": False})


def _busy(error: Exception) -> ApiError:
    headers = {"retry-after": "1"}
    return ApiError(429, str(error), kind="rate_limit_error", code="queue_full", headers=headers)


def _down(message: str) -> ApiError:
    headers = {"retry-after": "1"}
    return ApiError(503, message, kind=UNAVAILABLE, code="engine_down", headers=headers)


async def _read(receive: Receive) -> bytes | None:
    """The body; None if the client went away while it sent. Raises ApiError 413."""
    parts, size = [], 0
    while (message := await receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise ApiError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
        if not message.get("more_body", False):
            return b"".join(parts)
    return None


def merged(texts: Iterable[bytes]) -> bytes:
    """One exposition of several: families once, with the samples of all."""
    families: dict[str, Metric] = {}
    for text in texts:
        for family in text_string_to_metric_families(text.decode()):
            known = families.setdefault(family.name, family)
            if known is not family:
                known.samples += family.samples
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: dict[str, Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families.values())
