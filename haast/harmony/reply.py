"""A whole generation: answer, reasoning and tool calls."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from haast.harmony.delta import Delta
from haast.harmony.messages import Message
from haast.harmony.parser import HarmonyParser
from haast.harmony.tokenizer import Tokenizer


@dataclass(frozen=True)
class ToolCall:
    """A call of function `name`; `arguments` is what the model wrote, JSON or not."""

    name: str
    arguments: str


class Reply:
    """Deltas folded into what a chat API returns.

    Several messages of one kind are joined by a blank line.
    """

    def __init__(self) -> None:
        self._messages: list[tuple[Delta, list[str]]] = []

    def add(self, delta: Delta) -> str:
        """The text that `delta` adds to `content`, `reasoning` or its call's arguments."""
        if not self._messages or self._messages[-1][0].index != delta.index:
            self._messages.append((delta, []))
        written = self._messages[-1][1]
        text = delta.text
        if text and not written and delta.kind != "tool_call" and self._text(delta.kind):
            text = f"\n\n{text}"
        if text:
            written.append(text)
        return text

    @property
    def content(self) -> str:
        """What the user sees: preambles and the final answer."""
        return self._text("content")

    @property
    def reasoning(self) -> str:
        return self._text("reasoning")

    @property
    def tool_calls(self) -> list[ToolCall]:
        return [
            ToolCall((first.recipient or "").removeprefix("functions."), "".join(written))
            for first, written in self._messages
            if first.kind == "tool_call"
        ]

    def _text(self, kind: str) -> str:
        return "".join("".join(texts) for first, texts in self._messages if first.kind == kind)


def parse_reply(token_ids: Iterable[int], tokenizer: Tokenizer) -> Reply:
    """The reply a whole generation makes."""
    reply = Reply()
    for delta in _deltas(token_ids, tokenizer):
        reply.add(delta)
    return reply


def collect(token_ids: Iterable[int], tokenizer: Tokenizer) -> list[Message]:
    """The assistant messages of a whole generation, in order."""
    messages: list[Message] = []
    for delta in _deltas(token_ids, tokenizer):
        if delta.index == len(messages):
            messages.append(_message(delta))
        last = messages[-1]
        messages[-1] = replace(last, content=last.content + delta.text)
    return messages


def _message(delta: Delta) -> Message:
    return Message(
        "assistant",
        "",
        channel=delta.channel,
        recipient=delta.recipient,
        content_type=delta.content_type,
    )


def _deltas(token_ids: Iterable[int], tokenizer: Tokenizer) -> Iterator[Delta]:
    parser = HarmonyParser(tokenizer)
    for token_id in token_ids:
        yield from parser.feed(token_id)
    yield from parser.finish()
