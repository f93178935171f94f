"""Whatever tokens a model writes, an answer is made of it: the same whole and streamed."""

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haast.engine.request import SamplingParams, TokenLogprobs
from haast.harmony import HarmonyParser
from haast.serve.answer import Answer, Piece, TextAnswer, _joined
from haast.serve.chat_answer import ChatAnswer

from ...harmony.spell import spell
from ..fake_client import tokens
from .spoken import SPECIAL, TOKENIZER, says
from .test_answers import compare
from .token_streams import MARKERS, TEXTS, broken, legal, noise

NUM_STREAMS = 100_000
STOPS = ["b a", "\n\n", "Hello wor", "é𝔊"]
NO_STOP = SamplingParams(logprobs=0)
WORDS = [token_id for text in TEXTS for token_id in TOKENIZER.encode(text)]
MARKUP = re.compile(r"<\|\w+\|>")
NAME = re.compile(r"[^\s<{]+", re.ASCII)


def kinds(pieces: list[Piece], kind: str) -> str:
    return "".join(piece.text for piece in pieces if piece.kind == kind)


def told(answer: Answer, parts: list[list[int]], end: str) -> list[Piece]:
    """All pieces of an answer whose tokens come in these parts; token i has logprob -i."""
    pieces, count = [], 0
    for number, part in enumerate(parts):
        scored = tuple(TokenLogprobs(-float(count + at), ()) for at in range(len(part)))
        count += len(part)
        is_last = number == len(parts) - 1
        pieces += answer.take(tokens(*part, end=end if is_last else None, logprobs=scored))
        if answer.finish_reason is not None:
            break
    return pieces


def cut(random: Random, ids: list[int]) -> list[list[int]]:
    """Into parts of one to a few tokens; the engine tells the end with the last."""
    step = random.choice([1, 1, 2, 3, 5])
    parts = [ids[at : at + step] for at in range(0, len(ids), step)]
    return parts or [[]]


def state(answer: Answer) -> tuple:
    counts = (answer.num_tokens, answer.reasoning_tokens)
    return (*counts, answer.finish_reason, answer.anomalies)


def check(
    answers: tuple[Answer, ...],
    ids: list[int],
    parts: list[list[int]],
    end: str,
    may_score: frozenset[int] = frozenset(),
) -> list[Piece]:
    """Whole and streamed are equal, nothing is told twice; returns the pieces."""
    whole, streamed = told(answers[0], [ids], end), told(answers[1], parts, end)
    assert _joined(streamed) == whole and state(answers[0]) == state(answers[1])
    numbers = [-scored.logprobs.logprob for piece in whole for scored in piece.tokens]
    assert numbers == sorted(set(numbers)), "each token once, in order"
    assert all(ids[int(n)] not in MARKERS or ids[int(n)] in may_score for n in numbers)
    return whole


def written(ids: list[int]) -> str:
    """Content as the parser tells it, without what joins messages."""
    parser = HarmonyParser(TOKENIZER)
    deltas = [delta for token_id in ids for delta in parser.feed(token_id)] + parser.finish()
    return "".join(delta.text for delta in deltas if delta.kind == "content")


def check_chat(random: Random, ids: list[int]) -> None:
    params = random.choice([NO_STOP, SamplingParams(logprobs=0, stop=random.sample(STOPS, 2))])
    may_call, end = random.random() < 0.8, random.choice(["stop", "length"])
    answers = tuple(ChatAnswer(TOKENIZER, params, (), may_call) for _ in range(2))
    pieces = check(answers, ids, cut(random, ids), end)
    for piece in pieces:
        assert not MARKUP.search(piece.text)
        assert piece.name is None or NAME.fullmatch(piece.name)
        assert may_call or piece.kind != "tool_call"
    content, one = kinds(pieces, "content"), answers[0]
    assert not any(stop in content for stop in params.stop_strings)
    scored = [scored.token_id for piece in pieces for scored in piece.tokens]
    if not params.stop_strings:
        said = written(ids)
        shown = b"".join(map(TOKENIZER.token_bytes, scored)).decode(errors="replace")
        assert "\ufffd" in said or shown.split() == said.split(), "content is the scored tokens"
    stopped = one.num_tokens < len(ids)
    assert not stopped or (params.stop_strings and one.finish_reason == "stop")
    assert len(scored) + one.reasoning_tokens <= one.num_tokens
    assert one.finish_reason in ("stop", "length", "tool_calls")
    named = [piece.name for piece in pieces if piece.name is not None]
    assert (one.finish_reason == "tool_calls") <= bool(named)
    calls = [piece.call for piece in pieces if piece.name is not None]
    assert calls == list(range(len(calls)))


def spoken(ids: list[int]) -> dict[str, list[list[int]]]:
    """Text tokens of the messages of a legal stream, by kind; what has no `<|message|>` is none."""
    found: dict[str, list[list[int]]] = {"reasoning": [], "content": [], "tool_call": []}
    header, text = [], None
    for token_id in ids:
        if token_id == SPECIAL.message:
            about = TOKENIZER.decode(header)
            kind = "reasoning" if "analysis" in about else "content"
            text = found["tool_call" if "to=" in about else kind]
            text.append([])
        elif token_id in MARKERS and token_id != SPECIAL.channel:
            header, text = [], None
        elif text is None:
            header.append(token_id)
        else:
            text[-1].append(token_id)
    return found


def check_legal(ids: list[int]) -> None:
    """Every token is counted for what it is: text of one kind, or markup."""
    answer, expected = ChatAnswer(TOKENIZER, NO_STOP), spoken(ids)
    pieces = told(answer, [ids], "stop")
    scored = [scored.token_id for piece in pieces for scored in piece.tokens]
    assert scored == [token_id for text in expected["content"] for token_id in text]
    assert answer.reasoning_tokens == sum(map(len, expected["reasoning"]))
    assert answer.num_tokens == len(ids) and answer.anomalies.keys() <= {"cut_header"}
    for kind, texts in expected.items():
        join = "" if kind == "tool_call" else "\n\n"
        assert kinds(pieces, kind) == join.join(filter(None, map(TOKENIZER.decode, texts)))


def check_text(random: Random, ids: list[int]) -> None:
    """A plain completion; a stop token of the model, and all after a stop string, is no text."""
    params = random.choice([NO_STOP, SamplingParams(logprobs=0, stop=random.sample(STOPS, 2))])
    skips, end = random.random() < 0.7, random.choice(["stop", "length"])
    answers = tuple(TextAnswer(TOKENIZER, params, skips) for _ in range(2))
    text = kinds(
        check(answers, ids, cut(random, ids), end, may_score=frozenset(MARKERS)), "content"
    )
    is_silent = end == "stop" and ids and ids[-1] in TOKENIZER.stop_ids
    shown = ids[:-1] if is_silent else ids
    told_ids = [i for i in shown if not (skips and i in TOKENIZER.special_ids)]
    whole = TOKENIZER.decode(told_ids)
    ends = [whole.find(stop) for stop in params.stop_strings if stop in whole]
    assert whole.startswith(text) and (len(text) in ends if ends else text == whole)


@pytest.mark.parametrize("make", [legal, broken, noise])
def test_any_stream_is_an_answer(make):
    random = Random(make.__name__)
    for _ in range(NUM_STREAMS // 3 + 1):
        ids = make(random)
        try:
            check_chat(random, ids)
            if make is legal:
                check_legal(ids)
        except Exception as error:
            error.add_note(f"{ids} {TOKENIZER.decode(ids)!r}")
            raise


def test_any_stream_is_a_plain_completion():
    random = Random(1)
    for _ in range(NUM_STREAMS // 10):
        check_text(random, random.choice([legal, broken, noise])(random))


@pytest.mark.parametrize(
    "stream, scored, thought",
    [
        ("Hello world", "Hello world", ""),
        ("<|start|>assistant Hello<|return|>", " Hello", ""),
        ("<|channel|>final Hello<|return|>", " Hello", ""),
        ("<|channel|>analysis Hm.<|return|>", "", " Hm."),
        ("<|channel|>analysis<|message|>Hm.<|end|> So", "", "Hm. So"),
        ("<|channel|>analysis<|message|>Hm.assistant<|channel|>final<|message|>4", "4", "Hm."),
        ("<|channel|>final<|message|>Hi.assistant<|channel|>final<|message|>4", "Hi.4", ""),
        ("<|channel|>final<|message|>Hi.assistant", "Hi.assistant", ""),
    ],
)
def test_tokens_without_a_proper_header_are_counted_for_what_they_are(stream, scored, thought):
    ids = spell(stream, TOKENIZER)
    for parts in ([ids], [[token_id] for token_id in ids]):
        answer = ChatAnswer(TOKENIZER, NO_STOP)
        pieces = told(answer, parts, "length")
        text = [scored.token_id for piece in pieces for scored in piece.tokens]
        assert TOKENIZER.decode(text) == scored
        assert answer.reasoning_tokens == len(TOKENIZER.encode(thought))


@settings(max_examples=150, deadline=None)
@given(
    ids=st.lists(st.sampled_from(MARKERS) | st.integers(0, 400) | st.sampled_from(WORDS)),
    random=st.randoms(use_true_random=False),
)
def test_shrunk_streams(ids, random):
    check_chat(random, ids)
    check_text(random, ids)


@settings(max_examples=40, deadline=None)
@given(random=st.randoms(use_true_random=True), at_once=st.integers(1, 9))
def test_any_stream_over_http(random, at_once):
    ids = random.choice([broken, noise])(random) or [SPECIAL.return_]
    compare(says(ids, at_once=at_once), logprobs=True, stop=random.choice([None, STOPS[:1]]))
