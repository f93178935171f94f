"""Reads one answer as it comes: events with their times, or the body of an error."""

from time import perf_counter
from typing import Any

import msgspec

OK = 200
_END = b"\n\n"


class Delta(msgspec.Struct):
    """What a chunk of a chat adds."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class Choice(msgspec.Struct):
    """What a chunk adds to one answer."""

    text: str | None = None
    delta: Delta | None = None

    @property
    def has_text(self) -> bool:
        """Whether a user sees something new: of the answer, the reasoning or a tool call."""
        delta = self.delta
        return bool(
            self.text
            or (delta and (delta.content or delta.reasoning or delta.reasoning_content))
            or (delta and delta.tool_calls)
        )


class PromptDetails(msgspec.Struct):
    """Of the prompt's tokens."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Tokens, as the server counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None


class Chunk(msgspec.Struct):
    """One event; other fields are skipped without being built."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(Chunk).decode


class Whole:
    """A sink of a Connection for a body that comes in one piece."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body += body


class Reading:
    """A sink of a Connection for a stream of events.

    arrivals  when the events came that bring text; those that come together have the same time
    usage     tokens, as the server counts them; None = it did not say
    is_done   whether the stream ended as it should
    """

    def __init__(self) -> None:
        self.status = 0
        self.arrivals: list[float] = []
        self.usage: Usage | None = None
        self.is_done = False
        self._rest = b""
        self._failure: str | None = None

    @property
    def error(self) -> str | None:
        """What went wrong in the words of the server, in one line; None = nothing."""
        if self.status != OK:
            return f"{self.status}: {message(self._rest)}"
        return self._failure

    def on_body(self, body: bytes) -> None:
        """Take the next bytes; the events that they end are of this moment."""
        now = perf_counter()
        data = self._rest + body if self._rest else body
        if self.status != OK:
            self._rest = data
            return
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *events, self._rest = data.split(_END)
        for event in events:
            if event.startswith(b"data:"):
                self._take(event[5:], now)

    def _take(self, data: bytes, now: float) -> None:
        if data.strip() == b"[DONE]":
            self.is_done = True
            return
        try:
            chunk = _decode(data)
        except msgspec.MsgspecError as error:
            self._failure = self._failure or f"an event that is no chunk: {error}"
            return
        if chunk.error is not None:
            self._failure = self._failure or message(data)
        self.usage = chunk.usage or self.usage
        if any(choice.has_text for choice in chunk.choices):
            self.arrivals.append(now)


def message(data: bytes) -> str:
    """Of an error body, OpenAI's `error.message` or vLLM's `message`; else its beginning."""
    try:
        body = msgspec.json.decode(data)
        found = body.get("error", body)
        text = str(found["message"] if isinstance(found, dict) else found)
    except (msgspec.MsgspecError, AttributeError, KeyError):
        text = data.decode(errors="replace")
    return " ".join(text.split())[:200]
