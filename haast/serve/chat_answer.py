"""One answer to a chat: content, reasoning and tool calls, told apart by the harmony parser."""

from collections.abc import Sequence
from dataclasses import replace

from haast.engine.request import SamplingParams, TokenLogprobs
from haast.harmony import Delta, HarmonyParser, Reply, Tokenizer
from haast.harmony.delta import Kind
from haast.serve.answer import Answer, Piece


class ChatAnswer(Answer):
    """See `Answer`; stop strings are sought in the content only.

    opened     ids of the message that the prompt leaves open
    may_call   False: a call that the model writes all the same is dropped, as anomaly unasked_call
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        params: SamplingParams,
        opened: Sequence[int] = (),
        may_call: bool = True,
    ) -> None:
        super().__init__(tokenizer, params)
        self._parser = HarmonyParser(tokenizer)
        self._reply = Reply()
        self._open: Kind | None = None
        self._message = -1
        self._num_calls = 0
        self._may_call = may_call
        self._goes_on = params.ignore_eos or params.min_tokens > 0
        self._length = self._released = 0
        self._unplaced: list[tuple[int, TokenLogprobs | None]] = []
        special = tokenizer.special
        self._ends = {special.start, special.end, special.message} | tokenizer.stop_ids
        read = [piece for token_id in opened for piece in self._read(self._parser.feed(token_id))]
        # what the prompt wrote is no part of the answer, but a call has a name
        self._owed = [replace(piece, text="") for piece in read if piece.name is not None]

    def _feed(self, token_id: int, logprobs: TokenLogprobs | None) -> list[Piece]:
        is_text = token_id not in self.tokenizer.special_ids
        if is_text and self._open is None:
            self._unplaced.append((token_id, logprobs))
        elif is_text and self._open is not None:
            self._count(self._open, token_id, logprobs)
        deltas = self._parser.feed(token_id)
        if self._parser.spilled:
            self._place(deltas)
        if self._parser.unsaid:
            self._uncount()
        if token_id in self._ends:
            self._unplaced.clear()
        return self._paid() + self._read(deltas)

    def _place(self, deltas: Sequence[Delta]) -> None:
        """Count the tokens that were taken for a header and are text, as has now turned out."""
        size, found = self._parser.spilled, []
        while deltas and size > 0 and self._unplaced:
            found.append(self._unplaced.pop())
            size -= len(self.tokenizer.token_bytes(found[-1][0]))
        for token_id, logprobs in reversed(found):
            self._count(deltas[0].kind, token_id, logprobs)

    def _count(self, kind: Kind, token_id: int, logprobs: TokenLogprobs | None) -> None:
        self.reasoning_tokens += kind == "reasoning"
        if kind == "content":
            self._pending.add(self._length, token_id, logprobs)

    def _uncount(self) -> None:
        self.reasoning_tokens -= self._open == "reasoning"
        if self._open == "content":
            self._pending.drop_last()

    def _end(self, reason: str) -> list[Piece]:
        pieces = self._paid()
        if not self._stops.is_found:
            deltas = self._parser.finish()
            self._place(deltas)
            pieces += self._read(deltas) + self._released_text(self._stops.flush())
        has_called = self._may_call and self._num_calls > 0 and not self._stops.is_found
        self.finish_reason = "tool_calls" if has_called and reason == "stop" else reason
        self.anomalies = dict(self._parser.anomalies)
        if self._num_calls and not self._may_call:
            self.anomalies["unasked_call"] = self._num_calls
        if self._goes_on:
            self.anomalies.pop("after_stop", None)  # as the client wished
        return pieces

    def _paid(self) -> list[Piece]:
        owed, self._owed = self._owed, []
        return owed

    def _read(self, deltas: Sequence[Delta]) -> list[Piece]:
        pieces: list[Piece] = []
        for delta in deltas:
            is_new = delta.index != self._message
            self._message = delta.index
            self._open = None if delta.end else delta.kind
            pieces += self._told(delta, is_new)
        return pieces

    def _told(self, delta: Delta, is_new: bool) -> list[Piece]:
        """is_new: whether it begins a message"""
        text = self._reply.add(delta)
        if self._stops.is_found:
            return []
        if delta.kind == "tool_call":
            return self._call(delta, text, is_new)
        if delta.kind == "reasoning":
            return [Piece("reasoning", text)] if text else []
        self._length += len(text)
        return self._released_text(self._stops.add(text)) if text else []

    def _call(self, delta: Delta, text: str, is_new: bool) -> list[Piece]:
        self._num_calls += is_new
        if not self._may_call:
            return []
        name = (delta.recipient or "").removeprefix("functions.") if is_new else None
        if name is None and not text:
            return []
        return [Piece("tool_call", text, call=self._num_calls - 1, name=name)]

    def _released_text(self, text: str) -> list[Piece]:
        if not text:
            return []
        self._released += len(text)
        return [Piece("content", text, tokens=self._pending.release(self._released))]
