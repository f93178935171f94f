"""Grammars of replies and of texts, against the real vocabulary and haast-tiny's."""

import itertools

import pytest

from haast.engine.request import RequestError
from haast.grammars import (
    choice_piece,
    json_piece,
    lark_piece,
    regex_piece,
)
from haast.harmony import (
    CallRule,
    ReplyRules,
    ToolCall,
    reply_grammar,
)
from haast.harmony.grammar import text_grammar

from .speaker import PATHS, Speaker, read

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
