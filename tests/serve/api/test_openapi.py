"""/openapi.json: valid, complete, and as strict as the server, no more and no less."""

import json
from functools import cache

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from haast.serve.app import ENDPOINTS
from haast.serve.fields import REFUSED_IN_CHAT, REFUSED_IN_COMPLETIONS
from haast.serve.openapi import BODIES

from ..fake_client import INFO
from .conftest import HELLO, Api

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
NEEDED = {
    CHAT: {"messages": HELLO},
    f"{CHAT}/render": {"messages": HELLO},
    PLAIN: {"prompt": "Hello"},
    "/tokenize": {"prompt": "Hello"},
    "/detokenize": {"tokens": [5]},
}


@cache
def described(**settings):
    return Api(**settings).http.get("/openapi.json").json()


def schema(name: str):
    """A validator of a schema and what it refers to."""
    text = json.dumps(described()).replace("#/components/schemas/", "#/$defs/")
    schemas = json.loads(text)["components"]["schemas"]
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schemas})


def body_schema(path: str):
    return schema(BODIES[path].__name__)


@pytest.mark.parametrize("keys", [(), ("secret",)])
def test_it_is_openapi_3_1(keys):
    document = (
        described(api_keys=keys)
        if not keys
        else Api(api_keys=keys)
        .http.get("/openapi.json", headers={"authorization": "Bearer secret"})
        .json()
    )
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"
    for one in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(one)
    operation = document["paths"][CHAT]["post"]
    assert operation.get("security") == ([{"key": []}] if keys else None)
    assert ("401" in operation["responses"]) == bool(keys)
    assert "security" not in document["paths"]["/health"]["get"]


def test_every_endpoint_and_every_field_is_explained():
    document = described()
    assert set(document["paths"]) == {path.replace(":path", "") for path in ENDPOINTS}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"].endswith((".", "cannot")) or operation["summary"], path
            assert {"200", "500"} <= operation["responses"].keys()
    for body in BODIES.values():
        for name, field in document["components"]["schemas"][body.__name__]["properties"].items():
            assert len(field.get("description", "")) > 5, f"{body.__name__}.{name}"
    fields = document["components"]["schemas"]["ChatBody"]["properties"]
    assert fields.keys() >= REFUSED_IN_CHAT.keys() and fields["model"]["enum"] == ["tiny", None]
    plain = document["components"]["schemas"]["CompletionBody"]["properties"]
    assert plain.keys() >= REFUSED_IN_COMPLETIONS.keys()
    assert document["components"]["schemas"]["TokenId"]["maximum"] == INFO.vocab_size - 1


SAMPLING = [
    {"temperature": 0},
    {"temperature": -0.1},
    {"temperature": "1"},
    {"temperature": None},
    {"temperature": True},
    {"top_p": 0},
    {"top_p": 1},
    {"top_p": 1.1},
    {"top_k": -1},
    {"top_k": -2},
    {"top_k": 1.5},
    {"min_p": 1.5},
    {"repetition_penalty": 0},
    {"presence_penalty": -2},
    {"presence_penalty": 2.5},
    {"logit_bias": {"5": 100}},
    {"logit_bias": {"5": 101}},
    {"logit_bias": {"-5": 1}},
    {"logit_bias": {"x": 1}},
    {"seed": -(1 << 63)},
    {"seed": 1 << 64},
    {"n": 0},
    {"n": 2},
    {"n": 129},
    {"max_tokens": 0},
    {"max_tokens": INFO.max_length},
    {"max_tokens": "5"},
    {"min_tokens": -1},
    {"stop": ""},
    {"stop": []},
    {"stop": ["a", ""]},
    {"stop": ["a"]},
    {"stop": 5},
    {"stop_token_ids": [-1]},
    {"stop_token_ids": [7]},
    {"ignore_eos": 1},
    {"stream": "yes"},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": True, "stream_options": {"include_usage": 1}},
    {"stream_options": {"include_usage": True}},
    {"stream": False, "stream_options": None},
    {"priority": 0.5},
    {"cache_salt": 5},
    {"model": "other"},
    {"model": "tiny"},
    {"response_format": {"type": "text"}},
    {"response_format": {"type": "yaml"}},
    {"best_of": 1},
    {"best_of": 2},
    {"store": True},
    {"unknown": [1]},
    {"user": 5},
]
CHATS = [
    {"messages": []},
    {"messages": "Hello"},
    {"messages": [{"role": "robot", "content": "a"}]},
    {"messages": [{"role": "user"}]},
    {"messages": [{"role": "user", "content": None}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
    {"messages": [{"role": "assistant", "content": None}]},
    {"messages": [{"role": "assistant", "content": ""}]},
    {"messages": [{"role": "assistant", "reasoning": "a"}]},
    {"messages": [{"role": "assistant", "tool_calls": []}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]},
    {
        "messages": [
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
        ]
    },
    {"messages": [{"role": "tool", "content": "a", "name": "f"}]},
    {"messages": [{"role": "tool", "content": "a"}]},
    {"messages": [{"role": "tool", "content": "a", "name": "f g"}]},
    {"messages": [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}]},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"tools": [{"type": "web_search"}]},
    {"tools": [{"function": {"name": "f<"}}]},
    {"tools": [{"function": {"name": "f", "parameters": []}}]},
    {"tools": [{"function": {"name": "f", "parameters": None, "description": None}}]},
    {"tool_choice": "auto"},
    {"tool_choice": "sometimes"},
    *({"reasoning_effort": effort} for effort in ("low", "minimal", "max", "none", "LOW", None)),
    {"reasoning": {"effort": "high", "exclude": True}},
    {"reasoning": {"max_tokens": 5}},
    {"include_reasoning": "no"},
    {"logprobs": True, "top_logprobs": 20},
    {"logprobs": True, "top_logprobs": 21},
    {"logprobs": 5},
    {"top_logprobs": 2},
    {"max_completion_tokens": 0},
    {"max_completion_tokens": 5, "max_tokens": 6},
    {"reasoning_effort": "low", "reasoning": {"effort": "high"}},
]
PLAINS = [
    {"prompt": ""},
    {"prompt": ["a", "b"]},
    {"prompt": ["a", ""]},
    {"prompt": []},
    {"prompt": [5]},
    {"prompt": [[5], [6, 7]]},
    {"prompt": [[5], []]},
    {"prompt": [5, "a"]},
    {"prompt": None},
    {"echo": True},
    {"echo": True, "logprobs": 2},
    {"echo": False, "logprobs": 2},
    {"logprobs": 20},
    {"logprobs": 21},
    {"logprobs": True},
    {"skip_special_tokens": False},
    {"suffix": "a"},
    {"max_completion_tokens": 5},
]
TOKENS = [
    {"prompt": 5},
    {"messages": HELLO},
    {"prompt": None, "messages": HELLO},
    {"return_token_strs": True},
    {"add_generation_prompt": False},
]
CASES = [
    *((path, more) for path in (CHAT, PLAIN) for more in SAMPLING),
    *((CHAT, more) for more in CHATS),
    *((PLAIN, more) for more in PLAINS),
    *(("/tokenize", more) for more in TOKENS),
    *(("/detokenize", {"tokens": tokens}) for tokens in ([], [1.5], [-1], [INFO.vocab_size])),
]


def test_what_it_allows_is_what_is_accepted():
    api = Api()
    seen = set()
    for path, more in CASES:
        body = NEEDED[path] | more
        status = api.post(path, **body).status_code
        assert status in (200, 400, 404), (path, more)
        allowed = body_schema(path).is_valid(body)
        assert allowed == (status == 200), (path, more, status)
        seen.add((path, allowed))
    assert len(seen) == 8
