"""Every field of POST /v1/responses: honoured, or refused with its name."""

import logging

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming

from haast.engine.request import SamplingParams
from haast.serve import fields
from haast.serve.responses_api import body as bodies

from .conftest import Api
from .spoken import SPECIAL, TOKENIZER, message, says
from .told import refused, respond, whole

TOOL = {"type": "function", "name": "lookup", "description": "Look up."}
LOGPROBS = ["message.output_text.logprobs"]
PARAMS = [
    ({"temperature": 0}, {"temperature": 0}),
    ({"top_p": 0.5}, {"top_p": 0.5}),
    ({"max_output_tokens": 9}, {"max_new_tokens": 9}),
    ({"include": LOGPROBS}, {"logprobs": 0}),
    ({"include": LOGPROBS, "top_logprobs": 4}, {"logprobs": 4}),
    ({"top_logprobs": 0}, {"logprobs": None}),
    ({"top_k": 7}, {"top_k": 7}),
    ({"min_p": 0.25}, {"min_p": 0.25}),
    ({"presence_penalty": 1}, {"presence_penalty": 1}),
    ({"frequency_penalty": -1.5}, {"frequency_penalty": -1.5}),
    ({"repetition_penalty": 1.25}, {"repetition_penalty": 1.25}),
    ({"logit_bias": {"12": -100}}, {"logit_bias": {12: -100}}),
    ({"seed": -1}, {"seed": (1 << 64) - 1}),
    ({"stop": "a"}, {"stop": "a"}),
    ({"stop_token_ids": [5]}, {"stop_token_ids": [5]}),
    ({"ignore_eos": True, "min_tokens": 3}, {"ignore_eos": True, "min_tokens": 3}),
    ({"n": 1}, {}),
]


def asked(api: Api, **body):
    """What a request asks of the engine."""
    whole(api, **body)
    return api.engine.asked[-1]


def prompt(api: Api, **body) -> str:
    return TOKENIZER.decode(asked(api, **body).prompt_ids)


@pytest.mark.parametrize("body, expected", PARAMS, ids=lambda value: str(value)[:40])
def test_sampling(api, body, expected):
    assert asked(api, **body).params == SamplingParams(**expected)


def test_null_is_as_if_not_given(api):
    absent = dict.fromkeys(bodies.ResponseBody.model_fields.keys() - {"input"})
    assert asked(api, **absent) == asked(api)
    assert asked(api).params == SamplingParams() and asked(api)[2:] == (0, None)
    assert asked(api, priority=-3, cache_salt="me")[2:] == (-3, "me")


ECHOED = {
    "instructions": "Be brief.",
    "max_output_tokens": 9,
    "max_tool_calls": 3,
    "metadata": {"a": "b"},
    "parallel_tool_calls": False,
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "store": False,
    "temperature": 0.5,
    "tool_choice": "none",
    "top_p": 0.5,
    "truncation": "auto",
    "user": "u",
}


@pytest.mark.parametrize("name", ECHOED)
def test_what_is_given_is_shown(api, name):
    default = whole(api)[name]
    assert whole(api, **{name: ECHOED[name]})[name] == ECHOED[name] != default


def test_defaults_and_tools_are_shown(api):
    shown = whole(api, tools=[TOOL], service_tier="auto", reasoning={"effort": "minimal"})
    assert shown["tools"] == [TOOL | {"parameters": None, "strict": None}]
    assert shown["reasoning"] == {"effort": "low", "summary": None}
    assert shown["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
    assert (shown["service_tier"], shown["model"], shown["object"]) == (
        "default",
        "tiny",
        "response",
    )
    assert shown["store"] and shown["parallel_tool_calls"] and not shown["background"]
    assert shown["error"] is shown["incomplete_details"] is shown["previous_response_id"] is None


@pytest.mark.parametrize(
    "given, effort", [("low", "low"), ("high", "high"), ("minimal", "low"), ("xhigh", "high")]
)
def test_effort(api, given, effort):
    text = prompt(api, reasoning={"effort": given, "summary": "auto"})
    assert f"Reasoning: {effort}\n" in text and "Reasoning: medium\n" in prompt(api)


def test_tools_and_instructions(api):
    assert "type lookup = () => any;" in prompt(api, tools=[TOOL])
    assert "type lookup = () => any;" in prompt(api, tools=[TOOL], tool_choice="auto")
    assert prompt(api, tools=[TOOL], tool_choice="none") == prompt(api)
    assert "# Instructions\n\nBe brief." in prompt(api, instructions="Be brief.")
    as_chat = {"type": "function", "function": {"name": "lookup", "description": "Look up."}}
    chat = api.asked(tools=[as_chat], messages=[{"role": "user", "content": "Hello"}])
    assert asked(api, tools=[TOOL]).prompt_ids == chat.prompt_ids


FUNCTION = {"type": "function", "name": "lookup"}
REFUSED = [
    ({"text": {"verbosity": "low"}}, "text.verbosity"),
    ({"text": {"shape": 1}}, "text.shape"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [TOOL, {"type": "custom", "name": "a"}]}, "tools[1].type"),
    ({"tools": [{"type": "web_search"}], "tool_choice": "none"}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
    ({"tools": [FUNCTION | {"parameters": 1}]}, "tools[0].parameters"),
    ({"reasoning": {"effort": "none"}}, "reasoning.effort"),
    ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
    ({"reasoning": {"generate_summary": "concise"}}, "reasoning.generate_summary"),
    ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
    ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    ({"reasoning": {"max_tokens": 5}}, "reasoning.max_tokens"),
    ({"include": ["everything"]}, "include[0]"),
    ({"include": "all"}, "include"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"include": LOGPROBS, "top_logprobs": 21}, "top_logprobs"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"n": 2}, "n"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"metadata": {"a" * 65: "b"}}, "metadata"),
    ({"metadata": {"a": "b" * 513}}, "metadata"),
    ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
    ({"truncation": "middle"}, "truncation"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options"),
    ({"background": True, "store": False}, "background"),
    ({"previous_response_id": 7}, "previous_response_id"),
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": 7}, "input"),
]


@pytest.mark.parametrize("body, param", REFUSED, ids=lambda value: str(value)[:60])
def test_refusals_name_the_field(api, body, param):
    named, text = refused(api, **body)
    assert named.startswith(param) and param.split(".")[0].split("[")[0] in text


@pytest.mark.parametrize("name", sorted(bodies.MOVED))
def test_fields_of_chat_completions_are_told_where_they_went(api, name):
    value = 5 if "tokens" in name else [{"role": "user", "content": "Hello"}]
    value = {"type": "text"} if name == "response_format" else value
    named, text = refused(api, **{name: value})
    assert named == name and bodies.MOVED[name] in text


@pytest.mark.parametrize("name", sorted(bodies.REFUSED_IN_RESPONSES))
def test_known_fields_that_cannot_be_honoured(api, name):
    for allowed in (None, *bodies.REFUSED_IN_RESPONSES[name]):
        assert respond(api, **{name: allowed}).status_code == 200
    assert refused(api, **{name: "something else"})[0] == name


def test_no_field_of_openai_is_unknown():
    theirs = set(ResponseCreateParamsNonStreaming.__annotations__)
    known = bodies.ResponseBody.model_fields.keys() | bodies.REFUSED_IN_RESPONSES.keys()
    assert len(theirs) > 30 and theirs - known - fields.HARMLESS == set()


def test_what_only_tools_of_others_have_may_be_included(api, caplog):
    assert whole(api, include=list(bodies.INCLUDABLE))["status"] == "completed"
    options = {"include_obfuscation": False, "include_usage": True}
    assert respond(api, stream=True, stream_options=options).status_code == 200
    for name in sorted(fields.HARMLESS - bodies.ResponseBody.model_fields.keys()):
        assert respond(api, **{name: "x"}).status_code == 200
    assert not caplog.records


def test_an_unknown_field_is_accepted_and_logged_once(api, caplog):
    fields._reported.discard("fancy_field")
    with caplog.at_level(logging.WARNING, logger="haast"):
        assert respond(api, fancy_field=1).status_code == 200
    assert "'fancy_field'" in caplog.text


def test_an_unknown_model(api):
    response = respond(api, model="gpt-5")
    assert response.status_code == 404 and response.json()["error"]["code"] == "model_not_found"
    assert whole(api, model="tiny")["model"] == "tiny"


def test_a_prompt_that_is_too_long(api):
    named, text = refused(api, input="w " * 700)
    assert named == "input" and "maximum context length is 640 tokens" in text
    named, text = refused(api, max_output_tokens=640)
    assert named == "input" and "640 in the completion" in text
    counted = api.post("/v1/responses/input_tokens", input="w " * 700).json()
    assert counted["input_tokens"] > 640


def test_the_users_stop_token_is_no_part_of_the_answer():
    ids = [*message("final", "Hello there"), SPECIAL.return_]
    shown = whole(Api(says(ids[:-1])), stop_token_ids=[ids[-2]])
    assert shown["output"][0]["content"][0]["text"] == "Hello" and shown["status"] == "completed"
