"""Pieces of generated messages, and the bytes they are made from."""

import codecs
from dataclasses import dataclass
from typing import Literal

Kind = Literal["content", "reasoning", "tool_call"]


@dataclass(frozen=True)
class Delta:
    """A piece of one message: the first has no text, the last has `end` set.

    index  number of the message in this generation
    """

    channel: str
    recipient: str | None
    content_type: str | None
    text: str
    index: int = 0
    end: bool = False

    @property
    def kind(self) -> Kind:
        """A recipient makes it a tool call; else analysis is reasoning and all else content."""
        if self.recipient is not None:
            return "tool_call"
        return "reasoning" if self.channel == "analysis" else "content"


class TextDecoder:
    """Bytes of one message to whole characters.

    A token `assistant` waits for the next: before `<|channel|>` it is a header without markers.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = b""

    def add(self, data: bytes) -> str:
        ready, self._held = self._held + data, b""
        if data == b"assistant":
            ready, self._held = ready.removesuffix(data), data
        return self._decoder.decode(ready)

    def drop_held(self) -> bool:
        """Whether a token waited, and is none of the text."""
        had, self._held = bool(self._held), b""
        return had

    def flush(self) -> str:
        return self._decoder.decode(self._held, final=True)
