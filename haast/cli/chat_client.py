"""A client of OpenAI's chat API, as small as a terminal needs: streams of text, errors in a line.

The standard library suffices: one request at a time, read line by line. A package for HTTP would be
the server's only dependency that is none of its own.
"""

import json
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException, HTTPResponse
from typing import Any, Literal, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from haast.errors import HaastError

SILENCE_S = 600.0
"""How long a server may say nothing; reading a long prompt takes a while"""

NO_OPENAI_API = "this is no server with OpenAI's API: it does not answer in its JSON"


class ServerError(HaastError):
    """The server cannot be reached, or refuses; its text is one line."""


class Delta(NamedTuple):
    """What an answer gains; of the last one also why it ended."""

    kind: Literal["content", "reasoning", "end"]
    text: str


class ChatClient:
    """A server. base_url may end in /v1 or not."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        url = base_url if "://" in base_url else f"http://{base_url}"
        if not url.startswith(("http://", "https://")):
            raise ServerError(f"{base_url} is no URL of a server; try http://localhost:8000")
        self.url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"

    def model(self) -> str:
        """The first model that the server names. Raises ServerError."""
        with closing(self._open("/v1/models", None)) as response:
            data = _document(_read(response)).get("data")
        if not (isinstance(data, list) and data and isinstance(data[0], dict) and "id" in data[0]):
            raise ServerError(f"{self.url} names no model; give --model")
        return str(data[0]["id"])

    def stream(self, body: dict[str, Any]) -> Generator[Delta, None, None]:
        """The answer as it grows. Closing it early tells the server to stop. Raises ServerError."""
        reason = None
        with closing(self._open("/v1/chat/completions", body | {"stream": True})) as response:
            for data in _events(response):
                if data == b"[DONE]":
                    yield Delta("end", reason or "stop")
                    return
                event = _document(data)
                if event.get("error"):
                    raise ServerError(_message(data))
                for choice in _objects(event.get("choices") or []):
                    reason = choice.get("finish_reason") or reason
                    (delta,) = _objects([choice.get("delta") or {}])
                    yield from _deltas(delta)
        raise ServerError(f"{self.url} closed the connection in the middle of the answer")

    def _open(self, path: str, body: dict[str, Any] | None) -> HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        try:
            request = Request(self.url + path, data, self._headers)
            response: HTTPResponse = urlopen(request, timeout=SILENCE_S)
        except HTTPError as error:
            with error:
                raise ServerError(f"{error.code}: {_message(_read(error))}") from None
        except URLError as error:
            raise ServerError(f"cannot reach {self.url}: {_reason(error.reason)}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise ServerError(f"cannot reach {self.url}: {_reason(error)}") from None
        return response


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except (OSError, HTTPException) as error:
        raise ServerError(f"the connection broke: {_reason(error)}") from None


def _read(response: HTTPResponse | HTTPError) -> bytes:
    with _connected():
        return response.read()


def _events(response: HTTPResponse) -> Iterator[bytes]:
    with _connected():
        for line in response:
            if line.startswith(b"data:"):
                yield line[5:].strip()


def _objects(found: Any) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ServerError(NO_OPENAI_API)
    return found


def _deltas(delta: dict[str, Any]) -> Iterator[Delta]:
    reasoning = delta.get("reasoning") or delta.get("reasoning_content")
    if reasoning:
        yield Delta("reasoning", reasoning)
    if delta.get("content"):
        yield Delta("content", delta["content"])


def _document(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServerError(NO_OPENAI_API)
    return found


def _message(data: bytes) -> str:
    """Of an error body, OpenAI's `error.message`; else its beginning."""
    try:
        body = json.loads(data)
        found = body.get("error", body)
        text = str(found["message"] if isinstance(found, dict) else found)
    except (ValueError, AttributeError, KeyError):
        text = data.decode(errors="replace")
    return " ".join(text.split())[:300] or "no reason given"


def _reason(error: Any) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
