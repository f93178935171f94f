"""Log-probabilities of tokens, handed out with the text that the tokens are in."""

from collections import deque
from dataclasses import dataclass
from typing import Any

from haast.engine.request import TokenLogprobs
from haast.harmony import Tokenizer

FLOOR = -9999.0
"""What JSON, which has no infinity, says of an impossible token"""


@dataclass(frozen=True)
class Scored:
    """A token of an answer. start: length of the answer's text before it, in characters."""

    start: int
    token_id: int
    logprobs: TokenLogprobs


class Pending:
    """Tokens whose text is not yet known to belong to the answer."""

    def __init__(self) -> None:
        self._tokens: deque[Scored] = deque()

    def add(self, start: int, token_id: int, logprobs: TokenLogprobs | None) -> None:
        if logprobs is not None:
            self._tokens.append(Scored(start, token_id, logprobs))

    def drop_last(self) -> None:
        """Forget the token added last: it is none of the text."""
        if self._tokens:
            self._tokens.pop()

    def release(self, length: int) -> tuple[Scored, ...]:
        """Those that begin within the first `length` characters; the others wait."""
        released = []
        while self._tokens and self._tokens[0].start < length:
            released.append(self._tokens.popleft())
        return tuple(released)

    def rest(self) -> tuple[Scored, ...]:
        """All that still wait."""
        released = tuple(self._tokens)
        self._tokens.clear()
        return released


def chat_logprobs(tokens: tuple[Scored, ...], tokenizer: Tokenizer) -> dict[str, Any]:
    """The `logprobs` of a choice of a chat completion."""
    content = []
    for token in tokens:
        entry = _entry(tokenizer, token.token_id, token.logprobs.logprob)
        entry["top_logprobs"] = [_entry(tokenizer, *top) for top in token.logprobs.top]
        content.append(entry)
    return {"content": content, "refusal": None}


def _entry(tokenizer: Tokenizer, token_id: int, logprob: float) -> dict[str, Any]:
    data = tokenizer.token_bytes(token_id)
    text = data.decode(errors="replace")
    return {"token": text, "logprob": max(logprob, FLOOR), "bytes": list(data)}


def completion_logprobs(tokens: tuple[Scored, ...], tokenizer: Tokenizer) -> dict[str, Any]:
    """The `logprobs` of a choice of a plain completion; text_offset counts from the answer."""
    return {
        "tokens": [_name(tokenizer, t.token_id) for t in tokens],
        "token_logprobs": [max(t.logprobs.logprob, FLOOR) for t in tokens],
        "top_logprobs": [_likeliest(tokenizer, t) for t in tokens],
        "text_offset": [t.start for t in tokens],
    }


def _likeliest(tokenizer: Tokenizer, token: Scored) -> dict[str, float]:
    """The likeliest tokens, and the one that was drawn."""
    both = (*token.logprobs.top, (token.token_id, token.logprobs.logprob))
    return {_name(tokenizer, token_id): max(logprob, FLOOR) for token_id, logprob in both}


def _name(tokenizer: Tokenizer, token_id: int) -> str:
    """A token's text; one that is no whole character is spelled as OpenAI does."""
    data = tokenizer.token_bytes(token_id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
