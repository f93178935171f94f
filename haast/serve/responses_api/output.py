"""Pieces of an answer to output items, and the events that tell how items grow."""

from collections.abc import Sequence
from typing import Any

from haast.harmony import Tokenizer
from haast.serve.answer import Piece, PieceKind
from haast.serve.logprobs import chat_logprobs
from haast.serve.responses_api.items import Item, encode_reasoning, item_id, output_text

Event = dict[str, Any]
_GROWS: dict[PieceKind, str] = {
    "content": "response.output_text",
    "reasoning": "response.reasoning_text",
    "tool_call": "response.function_call_arguments",
}
"""What the events that carry text begin with"""
_PREFIX: dict[PieceKind, str] = {"content": "msg", "reasoning": "rs", "tool_call": "fc"}


class Output:
    """The items of one answer; at most the last of them is open.

    has_logprobs       whether text carries its tokens with log-probabilities
    encodes_reasoning  whether reasoning carries `encrypted_content`
    """

    def __init__(self, tokenizer: Tokenizer, has_logprobs: bool, encodes_reasoning: bool) -> None:
        self._tokenizer = tokenizer
        self._has_logprobs = has_logprobs
        self._encodes = encodes_reasoning
        self._closed: list[Item] = []
        self._open: _OpenItem | None = None

    @property
    def items(self) -> list[Item]:
        """As they are now."""
        return self._closed + ([self._whole("in_progress")] if self._open else [])

    def take(self, pieces: Sequence[Piece]) -> list[Event]:
        """What pieces of the answer add."""
        events: list[Event] = []
        for piece in pieces:
            if self._open is None or self._open.message != piece.message:
                events += self.close("completed")
                events += self._begin(piece)
            if piece.text:
                events.append(self._grow(piece))
        return events

    def close(self, status: str) -> list[Event]:
        """The end of the open item, if there is one. status: completed or incomplete"""
        if self._open is None:
            return []
        item, whole = self._open, self._whole(status)
        self._closed.append(whole)
        self._open, place = None, item.place
        done = {"type": "response.output_item.done", "output_index": item.index, "item": whole}
        if item.kind == "tool_call":
            told = {"type": f"{_GROWS[item.kind]}.done", **place, "arguments": item.text}
            return [told, done]
        text = {"type": f"{_GROWS[item.kind]}.done", **place, "text": item.text}
        if item.kind == "content":
            text["logprobs"] = item.logprobs
        part = whole["content"][0]
        return [text, {"type": "response.content_part.done", **place, "part": part}, done]

    def _begin(self, piece: Piece) -> list[Event]:
        self._open = item = _OpenItem(len(self._closed), piece)
        added = {"type": "response.output_item.added", "output_index": item.index}
        if item.kind == "tool_call":
            return [added | {"item": self._whole("in_progress")}]
        bare = self._whole("in_progress") | {"content": []}
        part = self._part(item)
        begun = {"type": "response.content_part.added", **item.place, "part": part}
        return [added | {"item": bare}, begun]

    def _grow(self, piece: Piece) -> Event:
        item = self._open
        assert item is not None
        item.texts.append(piece.text)
        told = {"type": f"{_GROWS[item.kind]}.delta", **item.place, "delta": piece.text}
        if item.kind == "content":
            scored = piece.tokens if self._has_logprobs else ()
            told["logprobs"] = chat_logprobs(scored, self._tokenizer)["content"]
            item.logprobs += told["logprobs"]
        return told

    def _whole(self, status: str) -> Item:
        """The open item as it is now."""
        item = self._open
        assert item is not None
        whole: Item = {"id": item.id, "type": item.type, "status": status}
        if item.kind == "tool_call":
            call = {"call_id": item.call_id, "name": item.name, "arguments": item.text}
            return whole | call
        content = [self._part(item)]
        if item.kind == "reasoning":
            encoded = {"encrypted_content": encode_reasoning(item.text)} if self._encodes else {}
            return whole | {"summary": [], "content": content} | encoded
        phase = "commentary" if item.is_preamble else "final_answer"
        return whole | {"role": "assistant", "phase": phase, "content": content}

    def _part(self, item: "_OpenItem") -> Item:
        if item.kind == "reasoning":
            return {"type": "reasoning_text", "text": item.text}
        return output_text(item.text, item.logprobs)


class _OpenItem:
    """An item that may still grow."""

    def __init__(self, index: int, first: Piece) -> None:
        self.index = index
        self.kind = first.kind
        self.type = {"content": "message", "tool_call": "function_call"}.get(self.kind, self.kind)
        self.message = first.message
        self.is_preamble = first.is_preamble
        self.name = first.name or ""
        self.id = item_id(_PREFIX[self.kind])
        self.call_id = item_id("call") if self.kind == "tool_call" else ""
        self.texts: list[str] = []
        self.logprobs: list[Any] = []

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def place(self) -> dict[str, Any]:
        """Where events say that it is; a call has no content parts."""
        place: dict[str, Any] = {"item_id": self.id, "output_index": self.index}
        return place if self.kind == "tool_call" else place | {"content_index": 0}
