"""/v1/responses: the same streamed and whole, whatever the model says."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haast.engine.request import QueueFullError
from haast.serve.client import EngineDownError

from ..fake_client import tokens
from .conftest import Api
from .spoken import NEXT, SPECIAL, TOKENIZER, call, message, news, says, thought_and_said
from .test_answers import PART, TEXT
from .test_streams import Client, is_asked, leave_when
from .told import final, respond, streamed, texts, told, whole

CHANNELS = {"analysis": "reasoning", "commentary": "commentary", "final": "final_answer"}


def compare(script, **body) -> dict:
    """The response, after comparing the stream with it."""
    shown = whole(Api(script), **body)
    events = streamed(Api(script), **body)
    last = final(events)
    assert strip(last) == strip(shown)
    return shown


def strip(response: dict) -> dict:
    """Without what is new each time."""
    response = json.loads(json.dumps(response)) | {"id": "", "created_at": 0, "completed_at": 0}
    for item in response["output"]:
        item["id"] = item["call_id"] = ""
    return response


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(PART, min_size=1, max_size=4),
    ends_in_call=st.booleans(),
    at_once=st.sampled_from([1, 2, 5, 9, 100]),
    stops=st.lists(st.text("ab é", min_size=1, max_size=3), max_size=2),
)
def test_a_stream_adds_up_to_the_whole_response(parts, ends_in_call, at_once, stops):
    ids = message(*parts[0])
    for part in parts[1:]:
        ids += NEXT + message(*part)
    ids += NEXT + call('{"a": 1}') if ends_in_call else [SPECIAL.return_]
    script = says(ids, at_once=at_once)
    shown = compare(script, stop=stops, include=["message.output_text.logprobs"])
    assert shown["status"] == "completed" and shown["usage"]["output_tokens"] <= len(ids)
    if not stops:
        spoken = [(CHANNELS[c], text) for c, text in parts if text or c == "final"]
        assert texts(shown) == spoken + [("lookup", '{"a": 1}')] * ends_in_call
    for item in shown["output"]:
        if item["type"] == "message":
            (part,) = item["content"]
            assert not any(stop in part["text"] for stop in stops)
            scored = b"".join(bytes(entry["bytes"]) for entry in part["logprobs"])
            assert scored.startswith(part["text"].encode())
            assert stops or scored == part["text"].encode()


@settings(max_examples=15, deadline=None)
@given(text=TEXT, stop=st.text("ab é", min_size=1, max_size=2), at_once=st.integers(1, 5))
def test_a_stop_string_ends_the_answer(text, stop, at_once):
    ids = [
        *message("analysis", text),
        *NEXT,
        *message("final", text + stop + "no"),
        SPECIAL.return_,
    ]
    shown = compare(says(ids, at_once=at_once), stop=stop)
    assert texts(shown)[-1] == ("final_answer", (text + stop).split(stop)[0])
    assert shown["status"] == "completed" and shown["output"][-1]["status"] == "completed"


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_thought_preamble_and_call(at_once):
    ids = [*message("analysis", "Hm."), *NEXT, *message("commentary", "Let me see."), *NEXT]
    shown = compare(says([*ids, *call('{"word": "wombat"}')], at_once=at_once))
    thought, preamble, made = shown["output"]
    assert texts(shown) == [
        ("reasoning", "Hm."),
        ("commentary", "Let me see."),
        ("lookup", '{"word": "wombat"}'),
    ]
    assert thought["summary"] == [] and thought["id"].startswith("rs_")
    assert preamble["role"] == "assistant" and preamble["id"].startswith("msg_")
    assert made["call_id"].startswith("call_") and made["id"].startswith("fc_")
    assert shown["completed_at"] >= shown["created_at"] and shown["id"].startswith("resp_")


CUT = [
    (message("analysis", "I think and"), [("reasoning", "I think and")], "incomplete"),
    (message("final", "Once upon"), [("final_answer", "Once upon")], "incomplete"),
    (call('{"word": "wom')[:-1], [("lookup", '{"word": "wom')], "incomplete"),
    ([*message("analysis", "Hm."), *NEXT], [("reasoning", "Hm.")], "completed"),
    (message("analysis", "")[:2], [], None),
]


@pytest.mark.parametrize(
    "ids, said, status", CUT, ids=["thinking", "speaking", "calling", "between", "header"]
)
def test_an_answer_that_was_cut_says_so(ids, said, status):
    shown = compare(says(ids, end="length"))
    assert shown["status"] == "incomplete" and shown["completed_at"] is None
    assert shown["incomplete_details"] == {"reason": "max_output_tokens"}
    assert texts(shown) == said and shown["usage"]["output_tokens"] == len(ids)
    assert [item["status"] for item in shown["output"]] == [status] * len(said)


def test_usage():
    ids = thought_and_said("Hm.", "one two three")
    api = Api(says(ids))
    shown = whole(api)
    prompt = len(api.engine.asked[-1].prompt_ids)
    assert shown["usage"] == {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": len(ids),
        "output_tokens_details": {"reasoning_tokens": len(TOKENIZER.encode("Hm."))},
        "total_tokens": prompt + len(ids),
    }
    assert api.post("/v1/responses/input_tokens", input="Hello").json() == {
        "object": "response.input_tokens",
        "input_tokens": prompt,
    }


def test_logprobs_are_of_messages_alone():
    script = says(thought_and_said("Hm, so.", "Hello é."))
    shown = compare(script, include=["message.output_text.logprobs"], top_logprobs=2)
    entries = shown["output"][1]["content"][0]["logprobs"]
    assert [e["token"] for e in entries] == [
        TOKENIZER.decode([i]) for i in TOKENIZER.encode("Hello é.")
    ]
    assert {len(e["top_logprobs"]) for e in entries} == {2} and shown["top_logprobs"] == 2
    bare = compare(script)
    assert bare["output"][1]["content"][0]["logprobs"] == []


def test_a_call_that_nobody_may_make_is_dropped():
    ids = [*message("commentary", "Well."), *NEXT, *call('{"a": 1}')]
    assert texts(compare(says(ids), tool_choice="none")) == [("commentary", "Well.")]
    assert texts(compare(says(ids))) == [("commentary", "Well."), ("lookup", '{"a": 1}')]


FAILURES = [
    (QueueFullError("4096 requests wait"), 429, "queue_full", "rate_limit_exceeded"),
    (EngineDownError("the engine process was killed"), 503, "engine_down", "server_error"),
    (tokens(end="error", error="RuntimeError: device"), 500, "engine_error", "server_error"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure, status, code, _kind", FAILURES, ids=["full", "down", "error"])
def test_failures_before_the_first_token_have_a_status(failure, status, code, _kind, stream):
    api = Api(lambda prompt, params: [failure])
    response = respond(api, stream=stream)
    assert response.status_code == status and response.json()["error"]["code"] == code
    assert api.engine.num_open == 0 and len(api.service.responses) == 0


@pytest.mark.parametrize("failure, status, _code, kind", FAILURES, ids=["full", "down", "error"])
def test_failures_in_a_stream_are_its_end(failure, status, _code, kind):
    def script(prompt, params):
        return [*news(thought_and_said("Hm.", "Hello there"), params)[:-2], failure]

    api = Api(script)
    last = final(streamed(api))
    assert last["status"] == "failed" and last["error"]["code"] == kind
    assert last["error"]["message"] and last["usage"] is None
    assert texts(last) == [("reasoning", "Hm."), ("final_answer", "Hello")]
    assert [item["status"] for item in last["output"]] == ["completed", "incomplete"]
    assert api.http.get(f"/v1/responses/{last['id']}").json() == last
    assert respond(api).status_code == status, "who waits for the whole is told by the status"


def test_an_error_after_a_ping_is_told_as_a_failed_response():
    api = Api(lambda prompt, params: [0.15, QueueFullError("full")], ping_s=0.05)
    events = told(respond(api, stream=True))
    assert [e["type"] for e in events] == ["response.created", "response.failed"]
    assert final(events)["error"] == {"code": "rate_limit_exceeded", "message": "full"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels(stream):
    api = Api(lambda prompt, params: [*news(message("final", "one two"), params)[:-1], 20.0])
    client = Client(api, "/v1/responses", input="Hello", stream=stream)
    holds = (lambda client: '"one"' in client.text) if stream else is_asked(api)
    asyncio.run(leave_when(client, api.engine, holds))
    assert (api.engine.num_open, api.engine.num_cancelled) == (0, 1)
    assert len(api.service.responses) == 0 and api.service.metrics.ended == {"abort": 1}
