"""Text as it arrives: the same however it is cut, and ended before the user's stop strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haast.harmony import Tokenizer
from haast.model.locate import demo_folder
from haast.reply_stream import ReplyStream, TextDelta

TOKENIZER = Tokenizer(demo_folder() / "tokenizer.json")
SPECIAL = TOKENIZER.special
LETTERS = st.text("ab é€\n", max_size=6)
STOPS = st.lists(st.text("ab é€", min_size=1, max_size=4), max_size=3)


def message(channel: str, pieces: list[str], recipient: str = "") -> list[int]:
    """Tokens of one message whose text is cut into these pieces, up to its end marker."""
    header = TOKENIZER.encode(recipient)
    header += [SPECIAL.channel, *TOKENIZER.encode(channel), SPECIAL.message]
    return header + [token_id for piece in pieces for token_id in TOKENIZER.encode(piece)]


def next_message(*arguments) -> list[int]:
    return [
        SPECIAL.end,
        SPECIAL.start,
        *TOKENIZER.encode("assistant"),
        *message(*arguments),
    ]


def run(stream: ReplyStream, token_ids: list[int]) -> list[TextDelta]:
    deltas = []
    for token_id in token_ids:
        deltas += stream.feed(token_id)
        if stream.is_stopped:
            break
    return deltas + stream.finish()


def streamed(deltas: list[TextDelta], kind: str) -> str:
    return "".join(delta.text for delta in deltas if delta.kind == kind)


def cut(text: str, stops: list[str]) -> str:
    """What is left of a text that is read letter by letter until a stop string is complete."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@given(pieces=st.lists(LETTERS, max_size=8), stops=STOPS)
def test_any_tokens_of_a_text_end_at_the_first_complete_stop_string(pieces, stops):
    stream = ReplyStream(TOKENIZER, stops)
    deltas = run(stream, [*message("final", pieces), SPECIAL.return_])
    text = "".join(pieces)
    expected = cut(text, stops)
    assert stream.content == streamed(deltas, "content") == expected
    assert stream.is_stopped == any(stop in text for stop in stops)
    assert all(delta.text for delta in deltas)


@given(pieces=st.lists(LETTERS, max_size=8), stops=STOPS)
def test_a_text_cut_off_by_the_length_limit_is_not_lost(pieces, stops):
    stream = ReplyStream(TOKENIZER, stops)
    deltas = run(stream, message("final", pieces))
    assert stream.content == streamed(deltas, "content") == cut("".join(pieces), stops)


@given(pieces=st.lists(LETTERS, max_size=5), stops=STOPS.filter(bool))
def test_stop_strings_are_not_sought_in_reasoning(pieces, stops):
    thoughts = ["x", *pieces, *stops]
    stream = ReplyStream(TOKENIZER, stops)
    answer = next_message("final", ["yes"])
    deltas = run(stream, [*message("analysis", thoughts), *answer, SPECIAL.return_])
    assert streamed(deltas, "reasoning") == stream.reply.reasoning == "".join(thoughts)
    assert stream.content == "yes" and not stream.is_stopped


def test_nothing_is_held_back_that_cannot_become_a_stop_string():
    stream = ReplyStream(TOKENIZER, ["abc"])
    run_up = message("final", [])
    for token_id in run_up:
        assert stream.feed(token_id) == []
    seen = []
    for piece in ("xa", "b", "x", "ab"):
        deltas = [d for token_id in TOKENIZER.encode(piece) for d in stream.feed(token_id)]
        seen.append("".join(delta.text for delta in deltas))
    assert seen == ["x", "", "abx", ""]
    assert stream.content == "xabx"
    assert stream.finish() == [TextDelta("content", "ab")]
    assert stream.content == "xabxab"


def test_the_stop_string_that_is_complete_first_wins_over_one_that_begins_first():
    for pieces in (["abc"], ["a", "b", "c"]):
        stream = ReplyStream(TOKENIZER, ["abc", "b"])
        run(stream, message("final", pieces))
        assert stream.content == "a"


def test_nothing_comes_after_a_stop():
    stream = ReplyStream(TOKENIZER, ["b"])
    deltas = [d for token_id in message("final", ["ab", "aa"]) for d in stream.feed(token_id)]
    assert streamed(deltas, "content") == "a"
    assert stream.finish() == [] and stream.content == "a"


def test_a_stop_string_is_found_across_a_preamble_and_the_answer():
    stream = ReplyStream(TOKENIZER, ["\n\nb"])
    token_ids = [*message("commentary", ["a"]), *next_message("final", ["bc"])]
    run(stream, token_ids)
    assert stream.is_stopped and stream.content == "a"


def test_arguments_of_a_tool_call_are_streamed_as_such():
    stream = ReplyStream(TOKENIZER, ["x"])
    token_ids = message("commentary", ['{"x"', ": 1}"], " to=functions.f")
    deltas = run(stream, [*token_ids, SPECIAL.call])
    assert streamed(deltas, "tool_call") == '{"x": 1}' and stream.content == ""
    (call,) = stream.reply.tool_calls
    assert (call.name, call.arguments) == ("f", '{"x": 1}')


def test_a_message_that_the_prompt_opened_goes_on():
    opened = message("final", ["The"])
    stream = ReplyStream(TOKENIZER, (), opened)
    run(stream, [*TOKENIZER.encode(" end"), SPECIAL.return_])
    assert stream.content == " end" and stream.anomalies == {}
    assert stream.reply.reasoning == ""


@pytest.mark.parametrize("marker", ["start", "channel"])
def test_anomalies_are_counted(marker):
    stream = ReplyStream(TOKENIZER, ())
    marker_id = getattr(SPECIAL, marker)
    run(stream, [*message("final", ["a"]), marker_id, SPECIAL.return_])
    assert stream.anomalies["missing_end"] == 1
