"""What the server answers is what /openapi.json says that it answers."""

import json

import pytest

from haast.engine.request import QueueFullError

from .conftest import Api, events
from .openapi_cases import CHAT, NEEDED, PLAIN
from .spoken import TOKENIZER, call, message, says, thought_and_said
from .test_openapi import described, schema

SCRIPTS = {
    "thought": says(thought_and_said("Hm.", "Hello there.")),
    "call": says([*message("analysis", "Hm."), *TOKENIZER.encode(""), *call('{"a": 1}')]),
    "cut": says(message("final", "Hello"), end="length"),
}


def name_of(path: str, content: str = "application/json", method: str = "post") -> str:
    kinds = described()["paths"][path][method]["responses"]["200"]["content"]
    schema = kinds[content]["schema"]
    if content == "text/event-stream":
        schema = schema["properties"]["data"]["anyOf"][0]["contentSchema"]
    return schema["$ref"].split("/")[-1]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("path", [CHAT, PLAIN])
@pytest.mark.parametrize("more", [{}, {"logprobs": 2}, {"n": 2}])
def test_answers_and_their_events(script, path, more):
    api = Api(SCRIPTS[script], mirrors_reasoning=True)
    if path == CHAT and "logprobs" in more:
        more = {"logprobs": True, "top_logprobs": 2}
    body = NEEDED[path] | more
    schema(name_of(path)).validate(api.post(path, **body).json())
    options = {"include_usage": True, "continuous_usage_stats": True}
    for stream in ({}, {"stream_options": options}):
        told = events(api.post(path, **body, stream=True, **stream))
        for one in told:
            schema(name_of(path, "text/event-stream")).validate(one)
        assert len(told) > 1


def test_small_answers():
    api = Api()
    for path in (f"{CHAT}/render", "/tokenize", "/detokenize"):
        more = {"return_token_strs": True} if path == "/tokenize" else {}
        schema(name_of(path)).validate(api.post(path, **NEEDED[path], **more).json())
    for path in ("/v1/models", "/health", "/ping", "/version"):
        schema(name_of(path, method="get")).validate(api.http.get(path).json())
    one = schema(name_of("/v1/models/{name}", method="get"))
    one.validate(api.http.get("/v1/models/tiny").json())
    assert "text/plain" in described()["paths"]["/metrics"]["get"]["responses"]["200"]["content"]


def test_errors():
    busy = Api(lambda prompt, params: [QueueFullError("16 requests wait")])
    locked = Api(api_keys=("secret",))
    answers = [
        Api().chat(temperature=-1),
        Api().chat(model="other"),
        Api().http.get("/v1/models/other"),
        locked.chat(),
        busy.chat(),
    ]
    statuses = [400, 404, 404, 401, 429]
    assert [answer.status_code for answer in answers] == statuses
    documents = described()["components"]["responses"]
    for status, answer in zip(statuses, answers, strict=True):
        schema("Error").validate(answer.json())
        for header in documents[str(status)]["headers"]:
            assert header in answer.headers
    assert {"400", "404", "429", "503"} <= described()["paths"][CHAT]["post"]["responses"].keys()


RESPONSES = "/v1/responses"


@pytest.mark.parametrize("script", SCRIPTS)
def test_responses_and_their_events(script):
    api = Api(SCRIPTS[script])
    one = f"{RESPONSES}/{{response_id}}"
    include = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    asked = {"input": "Hello", "include": include, "tools": [{"type": "function", "name": "f"}]}
    response = api.post(RESPONSES, **asked).json()
    schema(name_of(RESPONSES)).validate(response)
    for event in told_of(api.post(RESPONSES, **asked, stream=True)):
        schema(name_of(RESPONSES, "text/event-stream")).validate(event)
    path = f"{RESPONSES}/{response['id']}"
    schema(name_of(one, method="get")).validate(api.http.get(path).json())
    items = api.http.get(f"{path}/input_items").json()
    schema(name_of(f"{one}/input_items", method="get")).validate(items)
    schema(name_of(one, method="delete")).validate(api.http.delete(path).json())
    size = api.post(f"{RESPONSES}/input_tokens", input="Hello").json()
    schema(name_of(f"{RESPONSES}/input_tokens")).validate(size)
    queries = described()["paths"][f"{one}/input_items"]["get"]["parameters"]
    assert [query["name"] for query in queries] == ["response_id", "limit", "order", "after"]


def told_of(response) -> list:
    lines = [line for line in response.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]
