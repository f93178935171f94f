"""Answers: the same streamed and whole, whatever the model says and however tokens come."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haast.engine.request import SamplingParams
from haast.serve.answer import Piece
from haast.serve.chat_answer import ChatAnswer

from .conftest import Api, events
from .spoken import NEXT, SPECIAL, TOKENIZER, call, message, news, says, thought_and_said

TEXT = st.text("ab é€𝔊\n", max_size=8)
PART = st.one_of(
    st.tuples(st.just("analysis"), TEXT),
    st.tuples(st.just("commentary"), TEXT),
    st.tuples(st.just("final"), TEXT),
)


def assembled(response) -> list[dict]:
    """Choices of a stream, put together as clients do it."""
    choices = {}
    for chunk in events(response):
        assert chunk["object"] == "chat.completion.chunk"
        for told in chunk["choices"]:
            choice = choices.setdefault(
                told["index"], {"message": {}, "logprobs": [], "calls": {}, "finish_reason": None}
            )
            assert choice["finish_reason"] is None, "nothing comes after the finish reason"
            _add(choice, told["delta"])
            if told["logprobs"]:
                choice["logprobs"] += told["logprobs"]["content"]
            choice["finish_reason"] = told["finish_reason"]
    return [choices[index] for index in sorted(choices)]


def _add(choice, delta):
    assert choice["message"] or delta == {"role": "assistant", "content": ""}
    for call_delta in delta.get("tool_calls", ()):
        function = call_delta["function"]
        if call_delta["index"] not in choice["calls"]:
            assert call_delta["id"].startswith("call-") and call_delta["type"] == "function"
            assert function["name"] and function["arguments"] == ""
            assert call_delta["index"] == len(choice["calls"])
            choice["calls"][call_delta["index"]] = dict(function)
        else:
            assert call_delta.keys() == {"index", "function"} and function.keys() == {"arguments"}
            choice["calls"][call_delta["index"]]["arguments"] += function["arguments"]
    for name in ("role", "content", "reasoning"):
        if name in delta:
            choice["message"][name] = choice["message"].get(name, "") + delta[name]


def compare(script, **body) -> list[dict]:
    """The choices in one piece, after comparing them with the stream."""
    whole = Api(script).chat(**body).json()["choices"]
    parts = assembled(Api(script).chat(stream=True, **body))
    assert len(whole) == len(parts)
    for choice, part in zip(whole, parts, strict=True):
        told = choice["message"]
        assert part["message"].get("content", "") == (told["content"] or "")
        assert part["message"].get("reasoning") == told.get("reasoning")
        calls = [call["function"] for call in told.get("tool_calls", [])]
        assert list(part["calls"].values()) == calls
        assert part["finish_reason"] == choice["finish_reason"]
        assert part["logprobs"] == (choice["logprobs"] or {"content": []})["content"]
    return whole


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(PART, min_size=1, max_size=3),
    at_once=st.integers(1, 9),
    stops=st.lists(st.text("ab é", min_size=1, max_size=3), max_size=2),
)
def test_a_stream_adds_up_to_the_whole_answer(parts, at_once, stops):
    ids = message(*parts[0])
    for part in parts[1:]:
        ids += NEXT + message(*part)
    script = says([*ids, SPECIAL.return_], at_once=at_once)
    (choice,) = compare(script, stop=stops, logprobs=True, top_logprobs=1)
    content = choice["message"]["content"]
    assert not any(stop in content for stop in stops)
    scored = b"".join(bytes(t["bytes"]) for t in choice["logprobs"]["content"])
    shown = [text for channel, text in parts if channel != "analysis" and text]
    if not stops:
        assert content == "\n\n".join(shown) and scored.decode() == "".join(shown)


@settings(max_examples=30, deadline=None)
@given(text=TEXT, stop=st.text("ab é", min_size=1, max_size=2), at_once=st.integers(1, 5))
def test_logprobs_end_with_the_token_that_the_answer_ends_in(text, stop, at_once):
    script = says([*message("final", text), SPECIAL.return_], at_once=at_once)
    (choice,) = compare(script, stop=stop, logprobs=True)
    content = choice["message"]["content"].encode()
    scored = [bytes(t["bytes"]) for t in choice["logprobs"]["content"]]
    assert b"".join(scored).startswith(content)
    assert len(b"".join(scored[:-1])) < max(1, len(content))


def test_logprobs_are_of_the_content_alone():
    (choice,) = compare(
        says(thought_and_said("Hm, so.", "Hello é.")), logprobs=True, top_logprobs=2
    )
    entries = choice["logprobs"]["content"]
    assert [e["token"] for e in entries] == [
        TOKENIZER.decode([i]) for i in TOKENIZER.encode("Hello é.")
    ]
    assert {e["logprob"] for e in entries} == {-0.5}
    assert entries[0]["bytes"] == list(b"Hello")
    first, second = entries[0]["top_logprobs"]
    assert first == {"token": "Hello", "logprob": -0.5, "bytes": list(b"Hello")}
    assert second["logprob"] == -1.5
    assert all(e["top_logprobs"] == [] for e in _logprobs(top_logprobs=None))


def _logprobs(**body):
    script = says(thought_and_said("Hm.", "Hi."))
    return Api(script).chat(logprobs=True, **body).json()["choices"][0]["logprobs"]["content"]


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_tool_calls(at_once):
    ids = [*message("analysis", "Hm."), *NEXT, *message("commentary", "Let me see."), *NEXT]
    ids += call('{"word": "wombat"}')
    (choice,) = compare(says(ids, at_once=at_once))
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see." and choice["message"]["reasoning"] == "Hm."
    (made,) = choice["message"]["tool_calls"]
    assert made["type"] == "function" and made["id"].startswith("call-")
    assert made["function"]["name"] == "lookup"
    assert json.loads(made["function"]["arguments"]) == {"word": "wombat"}


def test_a_call_without_arguments_and_two_calls():
    (choice,) = compare(says(call("")))
    assert [c["function"] for c in choice["message"]["tool_calls"]] == [
        {"name": "lookup", "arguments": ""}
    ]
    assert choice["message"]["content"] is None
    ids = [*message("commentary", "{}", "functions.a"), *NEXT, *call("not json", "functions.b")]
    (choice,) = compare(says(ids))
    assert [c["function"] for c in choice["message"]["tool_calls"]] == [
        {"name": "a", "arguments": "{}"},
        {"name": "b", "arguments": "not json"},
    ]


@pytest.mark.parametrize(
    "ids, content, reasoning",
    [
        (message("analysis", "I think and"), "", "I think and"),
        (message("final", "Once upon"), "Once upon", None),
        (message("analysis", "")[:2], "", None),
    ],
    ids=["thinking", "speaking", "header"],
)
def test_an_answer_that_was_cut_says_so(ids, content, reasoning):
    (choice,) = compare(says(ids, end="length"))
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == content
    assert choice["message"].get("reasoning") == reasoning


def test_a_call_that_was_cut_is_told_with_length():
    (choice,) = compare(says(call('{"word": "wom')[:-1], end="length"))
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"word": "wom'


def test_stop_strings_end_one_answer_and_the_others_go_on():
    def script(_prompt, params):
        one = news(message("final", "one two three more"), params, end="length")
        other = news(message("final", "four two five more"), params, end="length")
        return [*one[0::2], *other[1::2]]

    whole = compare(script, n=2, stop=[" three", "five"])
    assert [c["message"]["content"] for c in whole] == ["one two", "four two "]
    assert [c["finish_reason"] for c in whole] == ["stop", "stop"]


def test_stop_strings_are_not_sought_in_thoughts_and_calls():
    ids = [*message("analysis", "a STOP b"), *NEXT, *call('{"STOP": 1}')]
    (choice,) = compare(says(ids), stop="STOP")
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning"] == "a STOP b"


def test_a_users_stop_token_is_no_part_of_the_answer():
    ids = message("final", "Hello there")
    (choice,) = compare(says(ids), stop_token_ids=[ids[-1]])
    assert choice["message"]["content"] == "Hello" and choice["finish_reason"] == "stop"


def test_usage_counts_every_token_up_to_the_end():
    ids = thought_and_said("Hm.", "one two three")
    usage = Api(says(ids)).chat(n=2).json()["usage"]
    prompt = (
        Api(says(ids))
        .post("/v1/chat/completions/render", messages=[{"role": "user", "content": "Hello"}])
        .json()["count"]
    )
    assert usage == {
        "prompt_tokens": prompt,
        "completion_tokens": 2 * len(ids),
        "total_tokens": prompt + 2 * len(ids),
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 2 * len(TOKENIZER.encode("Hm."))},
    }
    for at_once in (1, 100):
        script = says(ids, at_once=at_once, end="length")
        stopped = Api(script).chat(stop=" two").json()
        count = ids.index(TOKENIZER.encode(" two")[0]) + 1
        assert stopped["usage"]["completion_tokens"] == count
        assert stopped["choices"][0]["finish_reason"] == "stop"


def test_the_prompt_may_leave_a_message_open():
    """With a template; the answer goes on where the prompt stopped."""
    opened = message("final", "The")
    answer = ChatAnswer(TOKENIZER, SamplingParams(), opened)
    pieces = [
        piece
        for item in news([*TOKENIZER.encode(" end"), SPECIAL.return_], SamplingParams())
        for piece in answer.take(item)
    ]
    assert "".join(piece.text for piece in pieces) == " end"
    assert (answer.num_tokens, answer.finish_reason) == (2, "stop")


@pytest.mark.parametrize("may_call", [True, False])
def test_a_call_that_the_prompt_opened_has_its_name(may_call):
    opened = message("commentary", '{"a"', "functions.lookup")
    answer = ChatAnswer(TOKENIZER, SamplingParams(), opened, may_call)
    rest = [*TOKENIZER.encode(": 1}"), SPECIAL.call]
    (item,) = news(rest, SamplingParams(), at_once=100)
    pieces = answer.take(item)
    assert pieces == ([Piece("tool_call", ": 1}", 0, "lookup")] if may_call else [])
    assert answer.finish_reason == ("tool_calls" if may_call else "stop")
