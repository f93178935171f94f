"""Grammars of replies and of texts, against the real vocabulary and haast-tiny's."""

import itertools
import json

import numpy as np
import pytest

from haast.engine.request import RequestError
from haast.grammars import (
    LlGrammars,
    choice_piece,
    json_piece,
    lark_piece,
    regex_piece,
    why_invalid,
)
from haast.harmony import (
    CallRule,
    HarmonyParser,
    Reply,
    ReplyRules,
    Tokenizer,
    ToolCall,
    reply_grammar,
)
from haast.harmony.grammar import text_grammar
from haast.model.locate import demo_folder, packaged_folder

ARGUMENTS = json_piece(
    {
        "type": "object",
        "properties": {"word": {"type": "string"}},
        "required": ["word"],
        "additionalProperties": False,
    },
    is_strict=True,
)
LOOKUP, OTHER = CallRule("lookup", ARGUMENTS), CallRule("look-it.up_2", ARGUMENTS)
PATHS = {
    "tiny": demo_folder() / "tokenizer.json",
    "real": packaged_folder("gpt-oss-20b") / "tokenizer.json.xz",
}


class Ids:
    """Many token ids."""

    def __init__(self, bits):
        self.bits = bits

    def __contains__(self, token_id):
        return bool(self.bits[token_id])


class Speaker:
    """Spells replies in a vocabulary and tells how far grammars follow them."""

    def __init__(self, path):
        self.tokenizer = Tokenizer(path)
        self.special = self.tokenizer.special
        self.grammars = LlGrammars(self.tokenizer, self.tokenizer.vocab_size)
        self.size = -(-self.tokenizer.vocab_size // 32) * 4
        self.next = [self.special.end, self.special.start, *self.encode("assistant")]

    def encode(self, text):
        return self.tokenizer.encode(text)

    def message(self, channel, text, to="", kind="", is_late=False):
        """A message up to its end; to: of a call, before or behind the channel."""
        recipient = self.encode(f" to=functions.{to}") if to else []
        header = [self.special.channel, *self.encode(channel)]
        header = [*header, *recipient] if is_late else [*recipient, *header]
        if kind == "json":
            header += self.encode(" json")
        elif kind:
            space = self.encode(" ") if kind == "spaced" else []
            header += [*space, self.special.constrain, *self.encode("json")]
        return [*header, self.special.message, *self.encode(text)]

    def mask(self, matcher):
        """The ids that may come next."""
        data = np.zeros(3 * self.size, np.uint8)
        self.grammars.fill([(matcher, 1)], data.data, self.size)
        assert not data[: self.size].any() and not data[2 * self.size :].any()
        bits = np.unpackbits(data[self.size : 2 * self.size], bitorder="little")
        return {*np.flatnonzero(bits)} if bits.sum() < 300 else Ids(bits)

    def follow(self, grammar, token_ids):
        """How many of the ids the grammar allows, and the matcher after them."""
        matcher = self.grammars.matcher(grammar)
        for count, token_id in enumerate(token_ids):
            if token_id not in self.mask(matcher):
                return count, matcher
            assert matcher.consume(token_id) is None and matcher.why_stuck is None
        return len(token_ids), matcher

    def takes(self, rules, token_ids):
        """Whether a whole reply is one of those that the rules allow."""
        count, matcher = self.follow(reply_grammar(rules, self.tokenizer), token_ids)
        may_end = matcher.is_done or self.special.return_ in self.mask(matcher)
        return count == len(token_ids) and may_end


def read(speaker, reply):
    """Reasoning, content and calls, in which the parser finds nothing odd."""
    parser, folded = HarmonyParser(speaker.tokenizer), Reply()
    for token_id in reply:
        for delta in parser.feed(token_id):
            folded.add(delta)
    for delta in parser.finish():
        folded.add(delta)
    assert parser.anomalies == {}
    return folded.reasoning, folded.content, folded.tool_calls


@pytest.fixture(scope="module", params=PATHS)
def speaker(request):
    return Speaker(PATHS[request.param])


def test_every_spelling_of_a_call(speaker):
    thought = [*speaker.message("analysis", "Hm é🦩."), *speaker.next]
    preamble = [*speaker.message("commentary", "I look."), *speaker.next]
    ways = itertools.product(["lookup", "look-it.up_2"], ["", "json", "spaced", "tight"], [0, 1])
    for name, kind, is_late in ways:
        call = speaker.message("commentary", '{"word": "a"}', name, kind, is_late)
        reply = [*thought, *preamble, *call, speaker.special.call]
        assert speaker.takes(ReplyRules((LOOKUP, OTHER), may_answer=False), reply)
        assert read(speaker, reply) == ("Hm é🦩.", "I look.", [ToolCall(name, '{"word": "a"}')])
        assert speaker.takes(ReplyRules((OTHER, LOOKUP)), reply[len(thought) :])
        assert speaker.takes(ReplyRules((LOOKUP,)), reply) == (name == "lookup")
        assert not speaker.takes(ReplyRules(), reply)
        assert not speaker.takes(ReplyRules((LOOKUP, OTHER)), reply[:-1])


def test_wrong_replies(speaker):
    special, final = speaker.special, speaker.message("final", "Hi.")
    forced = ReplyRules((LOOKUP,), may_answer=False)
    assert speaker.takes(ReplyRules((LOOKUP,)), final)
    assert not speaker.takes(forced, final)
    wrong = speaker.message("commentary", '{"word": 1}', "lookup")
    assert not speaker.takes(forced, [*wrong, special.call])
    thought = speaker.message("analysis", "Hm.")
    assert not speaker.takes(ReplyRules(), thought)
    assert not speaker.takes(ReplyRules(), [*thought, special.channel, *speaker.encode("final")])
    assert not speaker.takes(ReplyRules(), [*thought, special.return_])
    assert not speaker.takes(ReplyRules(), [*final, special.end])
    for header in ("finalHello", "analysi"):
        begun = [special.channel, *speaker.encode(header), special.message]
        assert speaker.follow(reply_grammar(ReplyRules(), speaker.tokenizer), begun)[0] < len(begun)


def test_answers_have_their_format(speaker):
    thought = [*speaker.message("analysis", "Hm."), *speaker.next]
    word = ReplyRules(answer=ARGUMENTS)
    for kind in ("", "json", "spaced"):
        answer = speaker.message("final", '{"word":\n  "é🦩"}', kind=kind)
        assert speaker.takes(word, [*thought, *answer]) and speaker.takes(word, answer)
        assert read(speaker, [*thought, *answer])[:2] == ("Hm.", '{"word":\n  "é🦩"}')
        assert not speaker.takes(word, answer[:-1])
    odd = 'n"o\n🦩\\'
    choice = ReplyRules(answer=choice_piece(["yes", odd]))
    assert speaker.takes(choice, [*thought, *speaker.message("final", odd)])
    assert not speaker.takes(choice, speaker.message("final", "yes", kind="json"))
    assert not speaker.takes(choice, speaker.message("final", "maybe"))


def test_budgets_end_thoughts_exactly(speaker):
    special, final = speaker.special, speaker.message("final", "Hi.")
    words = speaker.encode("one two three é🦩 four")
    for budget in range(1, len(words)):
        head = speaker.message("analysis", "")
        grammar = reply_grammar(ReplyRules(thinking_budget=budget), speaker.tokenizer)
        count, matcher = speaker.follow(grammar, [*head, *words])
        assert count == len(head) + budget and speaker.mask(matcher) == {special.end}
    rules = ReplyRules((LOOKUP,), thinking_budget=2)
    thought = [*speaker.message("analysis", "a"), *speaker.next]
    assert speaker.takes(rules, [*thought, *final]) and speaker.takes(rules, final)
    assert not speaker.takes(rules, [*thought, *thought, *final])
    none = ReplyRules((LOOKUP,), thinking_budget=0)
    assert speaker.takes(none, final) and not speaker.takes(none, [*thought, *final])
    assert not speaker.takes(none, [*speaker.message("analysis", ""), *speaker.next, *final])


def test_texts(speaker):
    def takes(piece, text):
        count, matcher = speaker.follow(text_grammar(piece), ids := speaker.encode(text))
        return count == len(ids) and speaker.special.return_ in speaker.mask(matcher)

    assert takes(regex_piece(r"\d{2}/[a\n]+"), "12/a\na") and not takes(regex_piece("a+"), "ab")
    assert takes(regex_piece("yes|no"), "no") and not takes(regex_piece("yes|no"), "n")
    assert takes(lark_piece('root ::= "x" [0-9]+'), "x12")
    assert takes(lark_piece('start: "x" /[0-9]+/'), "x12")
    anything = json_piece({}, is_strict=True)
    assert takes(anything, '{"a": [1, 2.5e3, null],\n\t"é": {}}')
    assert not takes(anything, '{"a":  1}') and not takes(anything, '{"a":\n\n1}')


def test_ends_and_errors(speaker):
    grammar = text_grammar(regex_piece("ab"))
    count, matcher = speaker.follow(grammar, speaker.encode("ab"))
    assert count and matcher.is_done and matcher.why_stuck is None
    assert speaker.mask(matcher) == {speaker.special.return_}
    _, matcher = speaker.follow(grammar, [])
    assert not matcher.is_done
    why = matcher.consume(speaker.encode("z")[0])
    assert why and "\n" not in why and matcher.is_done and matcher.why_stuck == why
    assert not speaker.follow(grammar, [])[1].is_done, "matchers are their own"
    with pytest.raises(RequestError, match="grammar: .*unknown"):
        speaker.grammars.matcher(text_grammar({"lark_grammar": "start: b"}))


def test_many_masks_at_once_are_those_of_each(speaker):
    grammar = reply_grammar(ReplyRules((LOOKUP, OTHER)), speaker.tokenizer)
    call = speaker.message("commentary", '{"word": "abc"}', "lookup")
    matchers = [speaker.follow(grammar, call[:length])[1] for length in range(len(call))]
    data = bytearray(len(matchers) * speaker.size)
    rows = [(matcher, row) for row, matcher in enumerate(reversed(matchers))]
    speaker.grammars.fill(rows, memoryview(data), speaker.size)
    for matcher, row in rows:
        one = bytearray(speaker.size)
        speaker.grammars.fill([(matcher, 0)], memoryview(one), speaker.size)
        assert data[row * speaker.size : (row + 1) * speaker.size] == one and any(one)


def test_compiled_grammars_are_kept_up_to_a_number(monkeypatch):
    monkeypatch.setattr("haast.grammars.MAX_GRAMMARS", 2)
    grammars = Speaker(PATHS["tiny"]).grammars
    texts = [text_grammar(choice_piece([word])) for word in ("a", "b", "c")]
    for text in (*texts[:2], texts[0], texts[2]):
        grammars.compile(text)
    assert [grammars.is_compiled(text) for text in texts] == [True, False, True]


def test_reasons_take_one_line():
    assert why_invalid(regex_piece("(?=a)b")).endswith("look-behind, is not supported")
    assert why_invalid(json_piece({"not": {}}, is_strict=True)) == 'Unimplemented keys: ["not"]'
    assert why_invalid(json_piece({"not": {}}, is_strict=False)) is None
    user = {"x-guidance": {"lenient": True}, "not": {}}
    assert why_invalid(json_piece(user, is_strict=True)) is not None
    for text in ("", 'root ::= "a', "start"):
        with pytest.raises(ValueError) as error:
            lark_piece(text)
        assert str(error.value) and "\n" not in str(error.value)
    assert json.loads(text_grammar(regex_piece("é")))["grammars"] == [regex_piece("é")]
