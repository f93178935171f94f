"""Chunks of a chat completion."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from haast.serve.answer import Piece
from haast.serve.generation import Generation, follow
from haast.serve.logprobs import chat_logprobs
from haast.serve.protocol import StreamOptions
from haast.serve.requests import new_id
from haast.serve.service import Service
from haast.serve.sse import DONE, event


class ChatWriter:
    """Pieces of answers -> what the protocol calls them.

    head            fields of the body and of every chunk
    shows_thoughts  whether the client wants the reasoning
    has_logprobs    whether it wants log-probabilities
    """

    def __init__(
        self, service: Service, name: str, shows_thoughts: bool, has_logprobs: bool
    ) -> None:
        self.head = {"id": name, "created": int(time.time()), "model": service.model}
        self.has_logprobs = has_logprobs
        self._shows_thoughts = shows_thoughts
        self._mirrors = service.settings.mirrors_reasoning
        self._tokenizer = service.tokenizer

    def reasoning(self, text: str) -> dict[str, str]:
        """Fields of a message or delta that carry reasoning; none without any."""
        if not text or not self._shows_thoughts:
            return {}
        return {"reasoning": text} | ({"reasoning_content": text} if self._mirrors else {})

    def new_call(self, piece: Piece) -> dict[str, Any]:
        """A tool call from its first piece on."""
        function = {"name": piece.name, "arguments": piece.text}
        return {"id": new_id("call"), "type": "function", "function": function}

    def deltas(self, piece: Piece) -> list[dict[str, Any]]:
        """What a stream says of a piece. Of a call first what it is, then arguments."""
        if piece.kind == "content":
            return [{"content": piece.text}]
        if piece.kind == "reasoning":
            return [found] if (found := self.reasoning(piece.text)) else []
        told: list[dict[str, Any]] = []
        if piece.name is not None:
            opening = Piece("tool_call", "", piece.call, piece.name)
            told.append({"index": piece.call, **self.new_call(opening)})
        if piece.text:
            told.append({"index": piece.call, "function": {"arguments": piece.text}})
        return [{"tool_calls": [call]} for call in told]

    def logprobs(self, piece: Piece) -> dict[str, Any] | None:
        """Of a delta; only content has them."""
        if not self.has_logprobs or piece.kind != "content":
            return None
        return chat_logprobs(piece.tokens, self._tokenizer)


async def chat_events(
    service: Service, generation: Generation, writer: ChatWriter, options: StreamOptions | None
) -> AsyncGenerator[bytes, None]:
    """Server-sent events of a chat completion; one item a step of the engine."""
    head = writer.head | {"object": "chat.completion.chunk"}
    has_usage = bool(options and options.include_usage)
    is_continuous = has_usage and bool(options and options.continuous_usage_stats)

    def chunk(number: int, delta: dict[str, Any], **more: Any) -> bytes:
        choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": None} | more
        usage = {"usage": generation.usage() if is_continuous else None} if has_usage else {}
        return event(head | {"choices": [choice]} | usage)

    begun = set()
    async with aclosing(follow(service, generation)) as news:
        async for number, pieces in news:
            events = []
            if number not in begun:
                begun.add(number)
                events.append(chunk(number, {"role": "assistant", "content": ""}))
            for piece in pieces:
                logprobs = writer.logprobs(piece)
                events += [chunk(number, d, logprobs=logprobs) for d in writer.deltas(piece)]
            reason = generation.answers[number].finish_reason
            if reason is not None:
                events.append(chunk(number, {}, finish_reason=reason))
            if events:
                yield b"".join(events)
    last = event(head | {"choices": [], "usage": generation.usage()}) if has_usage else b""
    yield last + DONE
