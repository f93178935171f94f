"""Responses in the background: polled, streamed again, cancelled."""

import time

import pytest

from haast.engine.request import QueueFullError

from .conftest import Api
from .spoken import SPECIAL, message, news, thought_and_said
from .told import final, folded, refused, respond, told, whole

IDS = thought_and_said("Hm.", "Hello there.")


def slow(_prompt, params):
    """Says something, and then waits for a test to be over."""
    return [*news(IDS, params)[:-3], 20.0]


def waits(_prompt, _params):
    return [20.0]


@pytest.fixture
def api():
    """Its event loop runs between requests, too."""
    made = Api(lambda prompt, params: [0.1, *news(IDS, params, at_once=3)])
    with made.http:
        yield made


def poll(api: Api, name: str, until) -> dict:
    end = time.monotonic() + 10
    while True:
        shown = api.http.get(f"/v1/responses/{name}").json()
        if until(shown):
            return shown
        assert time.monotonic() < end, shown
        time.sleep(0.005)


def ended(shown: dict) -> bool:
    return shown["status"] not in ("queued", "in_progress")


def test_queued_then_completed(api):
    made = whole(api, background=True)
    assert made["status"] == "queued" and made["output"] == [] and made["background"]
    shown = poll(api, made["id"], ended)
    assert shown["status"] == "completed" and shown["usage"]["output_tokens"] == len(IDS)
    assert [item["type"] for item in shown["output"]] == ["reasoning", "message"]
    same = shown.keys() - {"status", "output", "usage", "completed_at"}
    assert {key: shown[key] for key in same} == {key: made[key] for key in same}
    path = f"/v1/responses/{made['id']}/cancel"
    assert api.http.post(path).json() == shown == api.http.post(path).json()


def test_what_there_is_so_far_is_shown(api):
    api.engine.script = slow
    made = whole(api, background=True)
    shown = poll(api, made["id"], lambda shown: len(shown["output"]) == 2)
    assert shown["status"] == "in_progress" and shown["usage"] is None
    assert [item["status"] for item in shown["output"]] == ["completed", "in_progress"]
    named, text = refused(api, previous_response_id=made["id"])
    assert named == "previous_response_id" and "is in_progress" in text
    cancelled = api.http.post(f"/v1/responses/{made['id']}/cancel").json()
    assert cancelled["status"] == "cancelled" and cancelled["completed_at"] is None
    assert [item["status"] for item in cancelled["output"]] == ["completed", "incomplete"]
    assert (api.engine.num_open, api.engine.num_cancelled) == (0, 1)
    assert api.http.get(f"/v1/responses/{made['id']}").json() == cancelled
    assert api.http.post(f"/v1/responses/{made['id']}/cancel").json() == cancelled
    api.engine.script = lambda prompt, params: news(IDS, params)
    assert whole(api, previous_response_id=made["id"])["status"] == "completed"


@pytest.mark.parametrize("stream", [False, True])
def test_one_that_the_engine_has_not_begun_is_cancelled(api, stream):
    api.engine.script = waits
    if stream:
        made = started(api)
    else:
        made = whole(api, background=True)
    assert api.http.post(f"/v1/responses/{made['id']}/cancel").json()["status"] == "cancelled"
    assert api.engine.num_open == 0
    if stream:
        events = told(api.http.get(f"/v1/responses/{made['id']}?stream=true"))
        assert [e["type"] for e in events] == ["response.created", "response.queued"]


def started(api: Api) -> dict:
    """A streamed response whose reader has left after the first event."""
    script, api.engine.script = api.engine.script, lambda prompt, params: [0.3, *script("", params)]
    with api.http.stream(
        "POST", "/v1/responses", json={"input": "Hello", "background": True, "stream": True}
    ):
        pass
    (name,) = api.service.responses._stored
    return api.http.get(f"/v1/responses/{name}").json()


def test_a_stream_of_it_may_be_taken_up_again(api):
    first = told(respond(api, background=True, stream=True))
    shown = final(first)
    kinds = [e["type"] for e in first[:3]]
    assert kinds == ["response.created", "response.queued", "response.in_progress"]
    assert [e["response"]["status"] for e in first[:3]] == ["queued", "queued", "in_progress"]
    path = f"/v1/responses/{shown['id']}"
    assert api.http.get(path).json() == shown
    assert told(api.http.get(f"{path}?stream=true")) == first
    for after in (0, 7, len(first) - 1, len(first) + 5):
        again = api.http.get(f"{path}?stream=true&starting_after={after}")
        assert told(again, first=after + 1) == first[after + 1 :]
    for wrong in ("-1", "x", "1.5"):
        response = api.http.get(f"{path}?stream=true&starting_after={wrong}")
        assert response.json()["error"]["param"] == "starting_after"


def test_it_goes_on_when_its_reader_leaves(api):
    made = started(api)
    events = told(api.http.get(f"/v1/responses/{made['id']}?stream=true"))
    assert final(events)["status"] == "completed" and api.engine.num_open == 0
    assert poll(api, made["id"], ended) == events[-1]["response"]


def test_failures_are_shown(api):
    api.engine.script = lambda prompt, params: [QueueFullError("full")]
    shown = poll(api, whole(api, background=True)["id"], ended)
    assert shown["status"] == "failed"
    assert shown["error"] == {"code": "rate_limit_exceeded", "message": "full"}
    events = told(respond(api, background=True, stream=True))
    assert [e["type"] for e in events][-1] == "response.failed" and folded(events) == []
    assert refused(api, previous_response_id=shown["id"])[0] == "previous_response_id"


def test_a_bug_is_no_silence(api, caplog):
    api.engine.script = lambda prompt, params: 1 / 0
    shown = poll(api, whole(api, background=True)["id"], ended)
    assert shown["error"] == {"code": "server_error", "message": "internal server error"}
    assert "ZeroDivisionError" in caplog.text


def test_one_that_runs_is_not_evicted_and_is_deleted_with_its_task():
    api = Api(waits, response_store_mib=1)
    with api.http:
        made = whole(api, background=True)
        api.engine.script = lambda prompt, params: news(
            [*message("final", "a"), SPECIAL.return_], params
        )
        for _ in range(4):
            whole(api, user="u" * 400_000)
        assert api.http.get(f"/v1/responses/{made['id']}").json()["status"] == "queued"
        assert api.http.delete(f"/v1/responses/{made['id']}").json()["deleted"]
        assert api.http.get(f"/v1/responses/{made['id']}").status_code == 404
        assert api.engine.num_open == 0
