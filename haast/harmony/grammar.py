"""What a reply may consist of, as a grammar over token ids in llguidance's notation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haast.harmony.tokenizer import Tokenizer

Piece = Mapping[str, Any]
"""A grammar of llguidance's list, without a name: {"json_schema": ...} or {"lark_grammar": ...}"""


@dataclass(frozen=True)
class CallRule:
    """A function that may be called, and what its arguments have to be."""

    name: str
    arguments: Piece


@dataclass(frozen=True)
class ReplyRules:
    """What a reply may consist of after `<|start|>assistant`.

    may_answer       whether there may be a final message instead of a call
    answer           what the final message has to be; None = any text
    thinking_budget  tokens of reasoning after which it is ended; None = any number
    """

    calls: Sequence[CallRule] = ()
    may_answer: bool = True
    answer: Piece | None = None
    thinking_budget: int | None = None


def reply_grammar(rules: ReplyRules, tokenizer: Tokenizer) -> str:
    """Messages of reasoning, preambles if there are calls, then one call or the final message.

    Headers are given as token ids, in the ways in which the models write them, so that no other
    spelling of their words is open. With a budget there is one message of reasoning, or none, and
    at most one preamble.
    """
    lark = _Headers(tokenizer).lark(rules)
    pieces = {f"args{i}": call.arguments for i, call in enumerate(rules.calls)}
    if rules.may_answer and rules.answer is not None:
        pieces["answer"] = rules.answer
    named = [{"name": name, **piece} for name, piece in pieces.items()]
    return json.dumps({"grammars": [{"lark_grammar": lark}, *named]})


def text_grammar(piece: Piece) -> str:
    """A whole text that has to be something."""
    return json.dumps({"grammars": [piece]})


class _Headers:
    """Rules of a reply; each part of a header is a run of token ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        special = tokenizer.special
        self._encode = tokenizer.encode
        self._channel = _ids([special.channel])
        self._message = _ids([special.message])
        self._call = _ids([special.call])
        self._next = _ids([special.end, special.start, *self._encode("assistant")])
        self._json = (
            f"{self._word(' json')} | {self._word(' ')}? {_ids([special.constrain])} "
            f"{self._word('json')}"
        )

    def lark(self, rules: ReplyRules) -> str:
        """The frame; what stands in final messages and arguments has grammars of its own."""
        ways = [f"call{i}" for i in range(len(rules.calls))]
        ways += ["final"] if rules.may_answer else []
        lines = [
            f"start: {self._before(rules)} ({' | '.join(ways)})",
            f"analysis: {self._header('analysis')} {self._message} thought {self._next}",
            f"preamble: {self._header('commentary')} {self._message} text {self._next}",
            f"thought{_at_most(rules.thinking_budget)}: /(.|\\n)*/",
            "text: /(.|\\n)*/",
            f"json: {self._json}",
        ]
        answer = "text" if rules.answer is None else "@answer"
        form = "json? " if rules.answer is not None and "json_schema" in rules.answer else ""
        lines.append(f"final: {self._header('final')} {form}{self._message} {answer}")
        for number, call in enumerate(rules.calls):
            to = self._word(f" to=functions.{call.name}")
            channel = self._header("commentary")
            lines.append(
                f"call{number}: ({to} {channel} | {channel} {to}) json? {self._message} "
                f"@args{number} {self._call}"
            )
        return "\n".join(lines)

    def _before(self, rules: ReplyRules) -> str:
        budget = rules.thinking_budget
        kinds = ["analysis"] if budget != 0 else []
        kinds += ["preamble"] if rules.calls else []
        if budget is None:
            return f"({' | '.join(kinds)})*"
        return " ".join(f"{kind}?" for kind in kinds)

    def _header(self, channel: str) -> str:
        return f"{self._channel} {self._word(channel)}"

    def _word(self, text: str) -> str:
        return _ids(self._encode(text))


def _ids(token_ids: Sequence[int]) -> str:
    return " ".join(f"<[{token_id}]>" for token_id in token_ids)


def _at_most(num_tokens: int | None) -> str:
    return "" if num_tokens is None else f"[max_tokens={num_tokens}]"
