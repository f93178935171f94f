"""What goes wrong has OpenAI's error body, the right status and a reason."""

import json

import pytest

from haast.engine.request import QueueFullError, RequestError
from haast.serve.client import EngineDownError

from ..fake_client import tokens
from .conftest import HELLO, Api, events
from .spoken import message, news

PATHS = ["/v1/chat/completions", "/v1/completions"]


def body_for(path: str, **more) -> dict:
    return ({"messages": HELLO} if "chat" in path else {"prompt": "Hello"}) | more


def error_of(response, status: int) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert document.keys() == {"error"}
    assert document["error"].keys() == {"message", "type", "param", "code"}
    assert document["error"]["message"] and "\n" not in document["error"]["message"]
    return document["error"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("data", [b"", b"{", b'{"a": }', b"\xff", b"[" * 5000])
def test_no_json(api, path, data):
    error = error_of(api.http.post(path, content=data), 400)
    assert error["message"].startswith("the body is no JSON: ")
    assert error["code"] == "invalid_json" and error["param"] is None


@pytest.mark.parametrize("data", ["[]", "1", "null", '"text"'])
def test_no_object(api, data):
    error = error_of(api.http.post(PATHS[0], content=data), 400)
    assert error["message"] == "the body must be a JSON object"


@pytest.mark.parametrize("path", [*PATHS, "/tokenize", "/v1/chat/completions/render"])
def test_unknown_model(api, path):
    error = error_of(api.post(path, **body_for(path, model="gpt-5")), 404)
    assert error["message"] == "The model 'gpt-5' does not exist; served here: 'tiny'"
    assert (error["param"], error["code"]) == ("model", "model_not_found")


def test_unknown_paths_and_methods(api):
    assert error_of(api.http.get("/v1/nothing"), 404)["message"] == "Not Found: GET /v1/nothing"
    error_of(api.http.get("/v1/chat/completions"), 405)
    error_of(api.http.post("/v1/embeddings", content="{}"), 404)


def test_too_long(api):
    error = error_of(api.complete(prompt=[1] * 640), 400)
    assert error["code"] == "context_length_exceeded" and error["param"] == "prompt"
    assert error["message"] == (
        "This model's maximum context length is 640 tokens. However, your prompt resulted in 640 "
        "tokens. Please reduce the length of the prompt."
    )
    error = error_of(api.complete(prompt=[1] * 630, max_tokens=11), 400)
    assert "you requested 641 tokens (630 in the prompt, 11 in the completion)" in error["message"]
    assert api.complete(prompt=[1] * 630, max_tokens=10).status_code == 200
    error = error_of(api.chat(messages=[{"role": "user", "content": "w " * 700}]), 400)
    assert error["param"] == "messages" and "your messages resulted in 7" in error["message"]
    assert len(api.engine.asked) == 1


FAILURES = [
    (QueueFullError("4096 requests wait"), 429, "queue_full"),
    (EngineDownError("the engine process was killed", 7), 503, "engine_down"),
    (RequestError("no page for it"), 400, None),
    (tokens(end="error", error="RuntimeError: device"), 500, "engine_error"),
    (tokens(end="cancelled"), 503, "engine_cancelled"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("failure, status, code", FAILURES, ids=lambda value: str(value)[:20])
def test_failures_before_the_first_token_have_a_status(path, failure, status, code, stream):
    api = Api(lambda prompt, params: [failure])
    response = api.post(path, **body_for(path, stream=stream))
    error = error_of(response, status)
    assert error["code"] == code
    retry_after = {"queue_full": "1", "engine_down": "7"}.get(code)
    assert response.headers.get("retry-after") == retry_after
    if isinstance(failure, Exception):
        assert error["message"] == str(failure)
    assert api.engine.num_open == 0
    metrics = api.service.metrics
    assert metrics.ended == {"error": 1}
    assert metrics.histograms["e2e_request_latency_seconds"].total == 0
    assert (metrics.prompt_tokens > 0) == isinstance(failure, tuple)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("failure", [FAILURES[1], FAILURES[3]], ids=["down", "error"])
def test_failures_in_a_stream_are_events(path, failure):
    api = Api(lambda prompt, params: [*news(message("final", "Hello"), params)[:-1], failure[0]])
    response = api.post(path, **body_for(path, stream=True))
    assert response.status_code == 200
    *_, last = events(response)
    assert last["error"]["code"] == failure[2] and last["error"]["message"]
    assert error_of(api.post(path, **body_for(path)), failure[1])["code"] == failure[2]


def test_one_of_several_prompts_fails():
    def script(prompt, params):
        return [QueueFullError("full")] if prompt == [3] else [0.05, *news([5], params)]

    api = Api(script)
    error_of(api.complete(prompt=[[1], [2], [3]]), 429)
    assert api.engine.num_open == 0 and api.engine.num_cancelled == 2


def test_a_bug_is_a_500_without_details(api, monkeypatch):
    monkeypatch.setattr(api.engine, "script", lambda prompt, params: 1 / 0)
    error = error_of(api.chat(), 500)
    assert error["message"] == "internal server error" and error["type"] == "server_error"


def test_keys():
    api = Api(api_keys=("one", "two"))
    for headers in ({}, {"authorization": "Bearer three"}, {"authorization": "Basic one"}):
        response = api.http.post(PATHS[0], content=json.dumps(body_for("chat")), headers=headers)
        assert error_of(response, 401)["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
    for key in ("one", "two"):
        response = api.http.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        assert response.status_code == 200
    for path in ("/health", "/ping", "/version", "/metrics"):
        assert api.http.get(path).status_code == 200
    assert api.http.get("/openapi.json").status_code == 401
    assert api.engine.asked == []


def test_origins():
    ask = {"origin": "http://page", "access-control-request-method": "POST"}
    allowed = "access-control-allow-origin"
    open_to_all = Api(api_keys=("k",)).http.options(PATHS[0], headers=ask)
    assert open_to_all.status_code == 200 and open_to_all.headers[allowed] == "*"
    api = Api(allowed_origins=("http://page",))
    assert api.http.options(PATHS[0], headers=ask).headers[allowed] == "http://page"
    refused = api.http.options(PATHS[0], headers=ask | {"origin": "http://other"})
    assert refused.status_code == 400 and allowed not in refused.headers
    # an error must be readable for a page too
    response = Api().http.post(PATHS[0], content="{", headers={"origin": "http://page"})
    assert response.headers[allowed] == "*"


@pytest.mark.parametrize("given", ["abc-1", "", "a" * 129, "a b"])
def test_request_ids(api, given):
    for path in ("/ping", "/v1/nothing"):
        told = api.http.get(path, headers={"x-request-id": given}).headers["x-request-id"]
        assert (told == given) == (given == "abc-1") and told
    stream = api.http.post(
        PATHS[0], content=json.dumps(body_for("chat", stream=True)), headers={"x-request-id": "s1"}
    )
    assert stream.headers["x-request-id"] == "s1"
