"""What is refused before it is looked at, and requests that are odd but clear."""

import asyncio
import json

import pytest

from haast.serve import requests
from haast.serve.requests import MAX_BODY_BYTES

from .conftest import HELLO, Api
from .spoken import message, news
from .test_errors import PATHS, body_for, error_of

BODY = json.dumps(body_for(PATHS[1])).encode()


def parts(*data: bytes):
    """A body whose length is not announced."""
    yield from data


def test_a_body_that_is_too_large(api):
    for content in (b" " * (MAX_BODY_BYTES + 1), parts(b" " * MAX_BODY_BYTES, b" ")):
        error = error_of(api.http.post(PATHS[1], content=content), 413)
        assert error["message"] == "the body is larger than 33554432 bytes"
    whole = BODY + b" " * (MAX_BODY_BYTES - len(BODY))
    assert api.http.post(PATHS[1], content=whole).status_code == 200
    assert api.service.gate.body_bytes == 0 and not api.service.gate.bodies


def test_a_body_that_is_announced_too_large_is_not_waited_for(api):
    headers = {"content-length": str(MAX_BODY_BYTES + 1)}
    error_of(api.http.post(PATHS[1], content=parts(), headers=headers), 413)


def test_large_bodies_at_once(api, monkeypatch):
    monkeypatch.setattr(requests, "MAX_BODIES_BYTES", 1000)
    api.service.gate.body_bytes = 1000 - len(BODY)
    assert api.http.post(PATHS[1], content=BODY).status_code == 200
    api.service.gate.body_bytes += 1
    response = api.http.post(PATHS[1], content=BODY)
    assert error_of(response, 503)["message"] == "too many large bodies are being received"
    assert response.headers["retry-after"] == "1"
    assert api.service.gate.body_bytes == 1001 - len(BODY)


@pytest.mark.parametrize("encoding, status", [("gzip", 415), ("br", 415), ("Identity", 200)])
def test_encodings(api, encoding, status):
    response = api.http.post(PATHS[1], content=BODY, headers={"content-encoding": encoding})
    assert response.status_code == status
    if status == 415:
        assert (
            error_of(response, 415)["message"] == f"content-encoding '{encoding}' is not supported"
        )


def test_what_a_body_is_called_does_not_matter(api):
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
        response = api.http.post(PATHS[1], content=BODY, headers={"content-type": kind})
        assert response.status_code == 200


def test_a_slash_at_the_end():
    api = Api(api_keys=("k",))
    key = {"authorization": "Bearer k"}
    for path in ("/health/", "/ping//"):
        assert api.http.get(path, follow_redirects=False).status_code == 200
    assert api.http.get("/v1/models/").status_code == 401
    listed = api.http.get("/v1/models/", headers=key, follow_redirects=False)
    assert listed.json() == api.http.get("/v1/models", headers=key).json()
    assert api.http.get("/v1/models/tiny/", headers=key).json()["id"] == "tiny"
    posted = api.http.post(f"{PATHS[1]}/", content=BODY, headers=key, follow_redirects=False)
    assert posted.status_code == 200
    error_of(api.http.get("/v1/", headers=key), 404)


def test_other_methods(api):
    assert api.http.head("/health").status_code == 200 and api.http.head("/health").text == ""
    for method in ("GET", "HEAD", "OPTIONS", "PUT"):
        response = api.http.request(method, PATHS[0])
        assert response.status_code == 405 and response.headers["allow"] == "POST"
    assert api.http.options("/health").headers["allow"] in ("GET, HEAD", "HEAD, GET")
    assert api.engine.asked == []


def test_keys_in_odd_headers():
    api = Api(api_keys=("ключ", "k"))

    def status(value: bytes) -> int:
        return api.http.get("/v1/models", headers={b"authorization": value}).status_code

    for value in ("Bearer ключ", "bearer k", "BEARER  k "):
        assert status(value.encode()) == 200
    for value in (b"Bearer", b"Bearer ", b"k", b"Bearer \xff", b"Bearer kk", b"Bearer k k", b""):
        assert status(value) == 401


def test_a_closed_gate():
    """Who is in goes on; who comes is refused, but for who watches the server."""

    def script(prompt, params):
        first, *rest = news(message("final", "one two"), params)
        return [first, 0.2, *rest]

    api = Api(script)

    async def work():
        asking = asyncio.create_task(asyncio.to_thread(api.chat, stream=True))
        while not api.engine.num_open:
            await asyncio.sleep(0.01)
        assert api.service.gate.num_open == 1
        api.service.gate.close()
        for path in ("/health", "/v1/models"):
            response = await asyncio.to_thread(api.http.get, path)
            error = error_of(response, 503)
            assert (error["message"], error["code"]) == (
                "the server is shutting down",
                "shutting_down",
            )
            assert response.headers["connection"] == "close"
        for path in ("/ping", "/metrics", "/version"):
            assert (await asyncio.to_thread(api.http.get, path)).status_code == 200
        assert (await asking).text.endswith("data: [DONE]\n\n")

    asyncio.run(work())
    assert api.service.gate.num_open == api.engine.num_probes == 0


def test_a_request_that_fails_leaves_the_gate(api, monkeypatch):
    monkeypatch.setattr(api.engine, "script", lambda prompt, params: 1 / 0)
    assert api.post(PATHS[0], messages=HELLO).status_code == 500
    assert api.service.gate.num_open == 0
