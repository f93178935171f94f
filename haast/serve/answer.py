"""One answer to a call: what the engine's tokens add to it, until it ends."""

import codecs
from dataclasses import dataclass, replace
from typing import Literal

from haast.engine.request import SamplingParams, TokenLogprobs
from haast.harmony import Tokenizer
from haast.serve.errors import ApiError
from haast.serve.logprobs import Pending, Scored
from haast.serve.messages import Tokens
from haast.stop_strings import StopStrings

PieceKind = Literal["content", "reasoning", "tool_call"]


@dataclass(frozen=True)
class Piece:
    """Text that is added to an answer.

    call         of a tool call: its number in the answer, from 0
    name         of the first piece of a tool call: the function's
    tokens       of content, if asked for: the tokens with their log-probabilities
    message      number of the message that it is in, where messages are told apart
    is_preamble  of content, where told apart: whether a tool call or the answer is to follow
    """

    kind: PieceKind
    text: str
    call: int = 0
    name: str | None = None
    tokens: tuple[Scored, ...] = ()
    message: int = 0
    is_preamble: bool = False


class Answer:
    """Follows one answer from its first token. Subclasses say what a token means.

    finish_reason     None while it goes on; what the client is told afterwards
    num_tokens        generated ones up to the end, markers included
    reasoning_tokens  those of them that are text of the analysis channel
    anomalies         how often the model left the harmony format, by kind
    """

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams) -> None:
        self.finish_reason: str | None = None
        self.num_tokens = 0
        self.reasoning_tokens = 0
        self.cached_tokens = 0
        self.anomalies: dict[str, int] = {}
        self.tokenizer = tokenizer
        self._stops = StopStrings(params.stop_strings)
        self._silent = frozenset(params.stop_token_ids) - tokenizer.special_ids
        self._pending = Pending()

    def take(self, news: Tokens) -> list[Piece]:
        """What news of the engine add. Raises ApiError if the engine failed at this answer."""
        self.cached_tokens = news.cached_tokens
        pieces: list[Piece] = []
        ends_at = len(news.token_ids) - 1 if news.finish_reason == "stop" else None
        for at, token_id in enumerate(news.token_ids):
            self.num_tokens += 1
            if at == ends_at and token_id in self._silent:
                break  # the user's own stop token is no part of the answer
            pieces += self._feed(token_id, news.logprobs[at] if news.logprobs else None)
            if self._stops.is_found:
                return _joined(pieces + self._end("stop"))
        if news.finish_reason in ("error", "cancelled"):
            status = 500 if news.finish_reason == "error" else 503
            why = news.error or "the engine cancelled the request"
            raise ApiError(status, why, kind="server_error", code=f"engine_{news.finish_reason}")
        if news.finish_reason is not None:
            pieces += self._end(news.finish_reason)
        return _joined(pieces)

    def _feed(self, token_id: int, logprobs: TokenLogprobs | None) -> list[Piece]:
        raise NotImplementedError

    def _end(self, reason: str) -> list[Piece]:
        """Set the finish reason; what was held back."""
        raise NotImplementedError


class TextAnswer(Answer):
    """A plain completion: all tokens are its text, special ones as the client wishes."""

    def __init__(
        self, tokenizer: Tokenizer, params: SamplingParams, skip_special_tokens: bool
    ) -> None:
        super().__init__(tokenizer, params)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        # the stop token that ended the answer is no part of it, the model's own neither
        self._silent = frozenset(params.stop_token_ids) | tokenizer.stop_ids
        self._length = self._released = 0

    def _feed(self, token_id: int, logprobs: TokenLogprobs | None) -> list[Piece]:
        self._pending.add(self._length, token_id, logprobs)
        data = b"" if token_id in self._skipped else self.tokenizer.token_bytes(token_id)
        return self._released_text(self._decoder.decode(data))

    def _end(self, reason: str) -> list[Piece]:
        self.finish_reason = reason
        if self._stops.is_found:
            return []
        pieces = self._released_text(self._decoder.decode(b"", final=True))
        rest = self._stops.flush()
        if self._stops.is_found:
            return pieces
        last = Piece("content", rest, tokens=self._pending.rest())
        return [*pieces, last] if last.text or last.tokens else pieces

    def _released_text(self, text: str) -> list[Piece]:
        self._length += len(text)
        known = self._stops.add(text)
        if not known:
            return []
        self._released += len(known)
        return [Piece("content", known, tokens=self._pending.release(self._released))]


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of the same kind as one."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last and piece.name is None and _place(last) == _place(piece):
            text, tokens = last.text + piece.text, last.tokens + piece.tokens
            joined[-1] = replace(last, text=text, tokens=tokens)
        else:
            joined.append(piece)
    return joined


def _place(piece: Piece) -> tuple[str, int, int]:
    return piece.kind, piece.call, piece.message
