"""Grammars of llguidance: whether a text is one, and which tokens it allows next."""

import ctypes
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from threading import Lock
from typing import Any

from llguidance import LLExecutor, LLMatcher, LLTokenizer, TokenizerWrapper
from llguidance.gbnf_to_lark import any_to_lark

from haast.engine.masks import Matcher
from haast.engine.request import RequestError
from haast.harmony import Tokenizer
from haast.harmony.grammar import Piece, text_grammar

MAX_GRAMMARS, MAX_CHARACTERS = 128, 4 << 20
"""Compiled ones that are kept, those used last, and the length of their texts together"""
MAX_CHECKED = 64 << 10
"""Length of the longest text whose check is remembered"""
_WHITE_SPACE = r" |\n[ \t]{0,20}"
"""Between two tokens of JSON: nothing, a space, or a line break and its indentation"""
PARALLEL_FROM = 4
"""Masks from which on threads are worth waking: one takes 8 us, seldom 200"""


def json_piece(schema: Mapping[str, Any], *, is_strict: bool) -> Piece:
    """JSON of a schema, laid out as people do it: a model may lose itself in white space.

    is_strict  whether a keyword that cannot be enforced is an error, or left out
    """
    options = {"whitespace_pattern": _WHITE_SPACE, "lenient": not is_strict}
    return {"json_schema": {**schema, "x-guidance": options}}


def regex_piece(regex: str) -> Piece:
    """Texts that match a regular expression (of Rust's kind) from end to end."""
    made = json.loads(LLMatcher.grammar_from_regex(regex))["grammars"][0]
    return {"lark_grammar": made["lark_grammar"]}


def choice_piece(choices: Sequence[str]) -> Piece:
    """One of some texts."""
    quoted = (json.dumps(choice, ensure_ascii=False) for choice in choices)
    return {"lark_grammar": f"start: {' | '.join(quoted)}"}


def lark_piece(text: str) -> Piece:
    """Texts of a grammar in Lark's notation, or in the one of llama.cpp (GBNF).

    Raises ValueError, in one line.
    """
    try:
        return {"lark_grammar": str(any_to_lark(text))}
    except Exception as error:  # of whatever kind: the converter has none of its own for most
        raise ValueError(_one_line(str(error)) or type(error).__name__) from None


def why_invalid(piece: Piece) -> str | None:
    """What is wrong with a grammar, in one line. Knows no vocabulary, so it is ready at once."""
    grammar = text_grammar(piece)
    check = _checked if len(grammar) <= MAX_CHECKED else _checked.__wrapped__
    return check(grammar)


@lru_cache(512)
def _checked(grammar: str) -> str | None:
    is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    return _one_line(messages[0]) if is_error else None


class LlMatcher:
    """How far one answer has come; see `haast.engine.masks.Matcher`."""

    __slots__ = ("inner",)

    def __init__(self, inner: LLMatcher) -> None:
        self.inner = inner

    def consume(self, token_id: int) -> str | None:
        """Go on by a token; why that cannot be."""
        return None if self.inner.consume_token(token_id) else self._error()

    @property
    def is_done(self) -> bool:
        return self.inner.is_stopped()

    @property
    def why_stuck(self) -> str | None:
        """To be asked after the mask was filled, which may find it out."""
        if not self.inner.is_stopped() or self.inner.is_accepting():
            return None
        return self._error() or str(self.inner.stop_reason())

    def _error(self) -> str:
        return _one_line(self.inner.get_error())


class LlGrammars:
    """Compiles grammars for a vocabulary; see `haast.engine.masks.Grammars`.

    Answers of one grammar share what was found out about it. A matcher belongs to one thread;
    `compile` may run in any.

    vocab_size  of the model, which may have more ids than the tokenizer's file
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._source = tokenizer
        self._model_size = vocab_size
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = Lock()
        self._tokenizer_lock = Lock()

    def is_compiled(self, text: str) -> bool:
        with self._lock:
            return text in self._compiled

    def compile(self, text: str) -> None:
        """Take the time that a first matcher of a text costs: milliseconds, seldom a second.

        Raises RequestError.
        """
        self._compile(text)

    def matcher(self, text: str) -> LlMatcher:
        """At the beginning of a grammar. Raises RequestError if it is none."""
        return LlMatcher(self._compile(text).deep_copy())

    def fill(self, matchers: Sequence[tuple[Matcher, int]], masks: memoryview, size: int) -> None:
        """Write the mask of each matcher to the row that stands beside it."""
        start = ctypes.addressof(ctypes.c_char.from_buffer(masks))
        inner: list[tuple[LLMatcher, int]] = []
        for matcher, row in matchers:
            assert isinstance(matcher, LlMatcher), matcher
            inner.append((matcher.inner, row))
        if len(inner) >= PARALLEL_FROM:
            self._executor.unsafe_compute_mask_ptr(inner, start, size, len(masks) // size)
            return
        for one, row in inner:
            one.unsafe_compute_mask_ptr(start + row * size, size)

    @cached_property
    def _executor(self) -> LLExecutor:
        return LLExecutor()

    def warm(self) -> None:
        """Read the vocabulary, which the first grammar would otherwise wait for: half a second."""
        self._tokenizer()

    def _tokenizer(self) -> LLTokenizer:
        with self._tokenizer_lock:
            return self._read_tokenizer

    @cached_property
    def _read_tokenizer(self) -> LLTokenizer:
        size = max(self._model_size, self._source.vocab_size)
        vocabulary = TokenizerWrapper(_Vocabulary(self._source, size))
        stop = self._source.special.return_
        return LLTokenizer(vocabulary, n_vocab=size, eos_token=[stop])

    def _compile(self, text: str) -> LLMatcher:
        with self._lock:
            found = self._compiled.get(text)
            if found is not None:
                self._compiled.move_to_end(text)
                return found
        made = LLMatcher(self._tokenizer(), text, log_level=0)
        if made.is_error():
            raise RequestError(f"grammar: {_one_line(made.get_error())}")
        with self._lock:
            self._compiled[text] = made
            while len(self._compiled) > 1 and self._is_full():
                self._compiled.popitem(last=False)
        return made

    def _is_full(self) -> bool:
        is_long = sum(map(len, self._compiled)) > MAX_CHARACTERS
        return is_long or len(self._compiled) > MAX_GRAMMARS


class _Vocabulary:
    """What llguidance wants to know of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.special.return_
        self.bos_token_id = None
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in range(vocab_size)]
        self.special_token_ids = sorted(tokenizer.special_ids)

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode(errors="replace"))


def _one_line(message: str) -> str:
    """The reason without the excerpts that follow it."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    reasons = [line.removeprefix("error: ") for line in lines[1:] if line.startswith("error: ")]
    return ": ".join(part.rstrip(":") for part in [*lines[:1], *reasons])
