"""Each field of a chat request: honoured, or refused with its name."""

import logging

import pytest

from haast.engine.request import SamplingParams
from haast.serve import fields

from .conftest import HELLO, Api, events
from .spoken import SPECIAL, TOKENIZER, call, says

TOOL = {"type": "function", "function": {"name": "lookup", "description": "Look up."}}
PARAMS = [
    ({"temperature": 0}, {"temperature": 0}),
    ({"top_p": 0.5}, {"top_p": 0.5}),
    ({"top_k": 7}, {"top_k": 7}),
    ({"top_k": -1}, {"top_k": None}),
    ({"top_k": 0}, {"top_k": None}),
    ({"min_p": 0.25}, {"min_p": 0.25}),
    ({"presence_penalty": 1}, {"presence_penalty": 1}),
    ({"frequency_penalty": -1.5}, {"frequency_penalty": -1.5}),
    ({"repetition_penalty": 1.25}, {"repetition_penalty": 1.25}),
    ({"logit_bias": {"12": -100, "13": 1.5}}, {"logit_bias": {12: -100, 13: 1.5}}),
    ({"seed": 11}, {"seed": 11}),
    ({"seed": -1}, {"seed": (1 << 64) - 1}),
    ({"n": 2}, {"n": 2}),
    ({"max_tokens": 9}, {"max_new_tokens": 9}),
    ({"max_completion_tokens": 9}, {"max_new_tokens": 9}),
    ({"max_completion_tokens": 9, "max_tokens": 9}, {"max_new_tokens": 9}),
    ({"min_tokens": 3}, {"min_tokens": 3}),
    ({"stop": "a"}, {"stop": "a"}),
    ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
    ({"stop_token_ids": [5]}, {"stop_token_ids": [5]}),
    ({"ignore_eos": True}, {"ignore_eos": True}),
    ({"logprobs": True}, {"logprobs": 0}),
    ({"logprobs": True, "top_logprobs": 4}, {"logprobs": 4}),
    ({"logprobs": False}, {"logprobs": None}),
    ({"allowed_token_ids": [4, 5]}, {"allowed_token_ids": [4, 5]}),
]
THOUGHT = len(TOKENIZER.encode("Hm."))
NOTHING = dict.fromkeys(("temperature", "stop", "n", "seed", "max_tokens", "stream"))


@pytest.mark.parametrize("body, expected", PARAMS, ids=lambda value: str(value))
def test_sampling(api, body, expected):
    assert api.asked(**body).params == SamplingParams(**expected)


def test_null_is_as_if_not_given(api):
    absent = dict.fromkeys([*NOTHING, "tools", "tool_choice", "response_format", "logit_bias"])
    assert api.asked(**absent) == api.asked()
    assert api.asked().params == SamplingParams() and api.asked()[2:] == (0, None)


def test_priority_and_salt(api):
    assert api.asked(priority=-3, cache_salt="me")[2:] == (-3, "me")


@pytest.mark.parametrize("name", ["tiny", "", None])
def test_model(api, name):
    assert api.chat(model=name).json()["model"] == "tiny"


def prompt(api: Api, **body) -> str:
    return TOKENIZER.decode(api.asked(**body).prompt_ids)


@pytest.mark.parametrize(
    "given, effort",
    [("low", "low"), ("high", "high"), ("minimal", "low"), ("xhigh", "high"), ("max", "high")],
)
def test_reasoning_effort(api, given, effort):
    assert f"Reasoning: {effort}\n" in prompt(api, reasoning_effort=given)
    assert f"Reasoning: {effort}\n" in prompt(api, reasoning={"effort": given})
    assert "Reasoning: medium\n" in prompt(api)


def test_tools(api):
    assert "type lookup = () => any;" in prompt(api, tools=[TOOL])
    assert "type lookup = () => any;" in prompt(api, tools=[TOOL], tool_choice="auto")
    assert prompt(api, tools=[TOOL], tool_choice="none") == prompt(api)
    assert api.chat(tools=[TOOL], parallel_tool_calls=True).status_code == 200


def test_a_call_that_nobody_may_make_is_dropped():
    api = Api(says(call('{"a": 1}')))
    (choice,) = api.chat(tools=[TOOL], tool_choice="none").json()["choices"]
    assert choice["finish_reason"] == "stop" and "tool_calls" not in choice["message"]
    assert choice["message"]["content"] == ""
    assert api.service.metrics.anomalies == {"unasked_call": 1}
    (choice,) = api.chat(tools=[TOOL]).json()["choices"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None


def test_reasoning_of_this_turn_is_kept_and_of_finished_ones_dropped(api):
    def asked(name):
        old = {"role": "assistant", "content": "A.", name: "Old thought."}
        used = {"role": "assistant", name: "New thought.", "tool_calls": [CALL]}
        result = {"role": "tool", "tool_call_id": "c1", "content": "{}"}
        return prompt(api, messages=[*HELLO, old, *HELLO, used, result], tools=[TOOL])

    CALL = {"id": "c1", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
    text = asked("reasoning")
    assert "New thought." in text and "Old thought." not in text
    assert "<|start|>functions.lookup to=assistant<|channel|>commentary<|message|>{}" in text
    assert asked("reasoning_content") == text


@pytest.mark.parametrize(
    "body", [{"include_reasoning": False}, {"reasoning": {"exclude": True}}], ids=str
)
def test_reasoning_is_hidden_and_still_counted(api, body):
    answer = api.chat(**body).json()
    assert "reasoning" not in answer["choices"][0]["message"]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == THOUGHT
    stream = events(api.chat(stream=True, **body))
    assert not [c for chunk in stream for c in chunk["choices"] if "reasoning" in c["delta"]]
    assert "reasoning" in api.chat(include_reasoning=True).json()["choices"][0]["message"]


def test_reasoning_may_be_mirrored():
    message = Api(mirrors_reasoning=True).chat().json()["choices"][0]["message"]
    assert message["reasoning"] == message["reasoning_content"] == "Hm."
    assert "reasoning_content" not in Api().chat().json()["choices"][0]["message"]


IMAGE = {"role": "user", "content": [{"type": "image_url"}]}
REFUSED = [
    ({"reasoning_effort": "none"}, "reasoning_effort"),
    ({"reasoning": {"max_tokens": 5}}, "reasoning.max_tokens"),
    ({"reasoning_effort": "low", "reasoning": {"effort": "high"}}, "reasoning_effort"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": 1.5}, "n"),
    ({"seed": 1 << 64}, "seed"),
    ({"stop": ""}, "stop"),
    ({"stop": 7}, "stop"),
    ({"logit_bias": {"x": 1}}, "logit_bias.x"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "Hello"}, "messages"),
    ({"messages": ["Hello"]}, "messages[0]"),
    ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0].type",
    ),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
]


@pytest.mark.parametrize("body, param", REFUSED, ids=lambda value: str(value)[:50])
def test_refusals_name_the_field(api, body, param):
    named, message = api.refused(**body)
    assert named == param
    assert param.split(".")[0].split("[")[0] in message


@pytest.mark.parametrize("name", sorted(fields.REFUSED_IN_CHAT))
def test_known_fields_that_cannot_be_honoured(api, name):
    for allowed in (None, *fields.REFUSED_IN_CHAT[name]):
        assert api.chat(**{name: allowed}).status_code == 200
    assert api.refused(**{name: "something else"})[0] == name


def test_true_is_not_one(api):
    assert api.refused(best_of=True)[0] == "best_of"


@pytest.mark.parametrize("name", sorted(fields.HARMLESS))
def test_harmless_fields(api, name, caplog):
    assert api.chat(**{name: "x"}).status_code == 200
    assert not caplog.records


def test_an_unknown_field_is_accepted_and_logged_once(api, caplog):
    fields._reported.discard("fancy_field")
    with caplog.at_level(logging.WARNING, logger="haast"):
        for _ in range(3):
            assert api.chat(fancy_field=1).status_code == 200
    assert [record.getMessage() for record in caplog.records] == [
        "requests have an unknown field 'fancy_field', which is ignored"
    ]


def test_the_models_stop_tokens_are_not_the_clients_business(api):
    assert SPECIAL.return_ not in api.asked().params.stop_token_ids
