"""The front and a replica without Ray between them."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from starlette.testclient import TestClient

from haast.integrations.front import Front, merged
from haast.integrations.replica import MAX_UNTAKEN, Replica
from haast.serve.requests import MAX_BODY_BYTES

START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"end", "more_body": False}
PART = {"type": "http.response.body", "body": b"part,", "more_body": True}


class News:
    """What a call of a replica gives: batches of messages, or an error in between."""

    def __init__(self, batches) -> None:
        self._batches = iter(batches)

    def __aiter__(self):
        return self

    async def __anext__(self):
        batch = next(self._batches, None)
        if batch is None:
            raise StopAsyncIteration
        if isinstance(batch, Exception):
            raise batch
        return batch


class Handle:
    """A deployment whose calls give these, one after the other."""

    def __init__(self, *calls) -> None:
        self.calls = [News(call) for call in calls]
        self.asked = []
        self.answer = SimpleNamespace(remote=self._answer)

    def options(self, **options):
        self.asked.append(options)
        return self

    def _answer(self, scope, body):
        self.asked.append((scope, body))
        return self.calls[len(self.asked) - 2]


def front(*calls):
    handle = Handle(*calls)
    return TestClient(Front(handle).__serve_build_asgi_app__()), handle


def test_an_answer_is_passed_on():
    named = {**START, "headers": [(b"x-request-id", b"mine"), (b"vary", b"Origin")]}
    http, handle = front([[named, PART], [PART, END]])
    response = http.post("/v1/chat/completions?a=b", json={"prompt_cache_key": "k"})
    assert response.status_code == 200 and response.text == "part,part,end"
    assert response.headers["vary"] == "Origin" and "x-request-id" not in response.headers
    options, (scope, body) = handle.asked
    assert scope["path"] == "/v1/chat/completions" and scope["query_string"] == b"a=b"
    assert body == b'{"prompt_cache_key":"k"}' and scope["method"] == "POST"
    assert scope["haast.session"] == options["session_id"] != "" and options["stream"] is True


def test_a_request_that_was_not_answered_is_sent_again():
    http, handle = front([RayActorError()], [RayActorError()], [[START, END]])
    assert http.post("/v1/completions").text == "end"
    assert len(handle.asked) == 4


def test_but_not_for_ever():
    http, _ = front(*[[RayActorError()]] * 3)
    response = http.post("/v1/completions")
    assert response.status_code == 503 and response.headers["retry-after"] == "1"
    error = response.json()["error"]
    assert error["code"] == "engine_down" and error["type"] == "service_unavailable_error"


def test_a_stream_that_breaks_ends_with_an_error():
    http, handle = front([[START, PART], RayActorError()], [[START, END]])
    response = http.post("/v1/completions")
    assert response.status_code == 200
    event, done, rest = response.text.split("\n\n")
    assert event.startswith('part,data: {"error":') and '"code":"engine_down"' in event
    assert (done, rest) == ("data: [DONE]", "")
    assert len(handle.asked) == 2, "it was not asked for again"


def test_all_replicas_are_busy():
    http, _ = front([BackPressureError(7, 7)])
    response = http.post("/v1/completions")
    assert response.status_code == 429 and response.json()["error"]["code"] == "queue_full"


def test_a_body_that_is_too_large():
    http, handle = front()
    response = http.post("/v1/completions", content=b"x" * (MAX_BODY_BYTES + 1))
    assert response.status_code == 413 and handle.asked == []


class Bare(Replica):
    """Without an engine, so that there is nothing to close."""

    def __init__(self) -> None: ...

    def __del__(self) -> None: ...


def replica(app):
    """One whose application this is."""
    made = Bare()
    made._app = app
    return made


def run(work):
    return asyncio.run(asyncio.wait_for(work, 30))


async def taken(answer):
    return [message async for batch in answer for message in batch]


def test_a_replica_gives_what_its_application_sends():
    async def app(scope, receive, send):
        assert (await receive())["body"] == scope["expected"]
        await send(START)
        for more in (*[True] * 999, False):
            await send({"type": "http.response.body", "body": b"a", "more_body": more})

    scope = {"type": "http", "expected": b"body"}
    messages = run(taken(replica(app).answer(scope, b"body")))
    assert messages[0]["status"] == 200 and messages[-1]["more_body"] is False
    assert b"".join(m.get("body", b"") for m in messages) == b"a" * 1000
    assert len(messages) < 20, "what comes at once goes together"


def test_of_many_answers_each_is_given_less_often():
    async def app(scope, receive, send):
        await send(START)
        for _ in range(100):
            await asyncio.sleep(0.002)
            await send(PART)

    async def count(num_open):
        one = replica(app)
        one._num_open = num_open
        batches = [batch async for batch in one.answer({}, b"")]
        assert sum(len(m.get("body", b"")) for b in batches for m in b) == 500
        return len(batches)

    assert run(count(0)) > 4 * run(count(150))


def test_an_error_of_the_application_is_raised():
    async def app(scope, receive, send):
        await send(START)
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run(taken(replica(app).answer({}, b"")))


def test_who_goes_away_cancels_the_application():
    ended = []

    async def app(scope, receive, send):
        try:
            for _ in range(10 * MAX_UNTAKEN):
                await send(PART)
        finally:
            ended.append(True)

    async def leave():
        answer = replica(app).answer({}, b"")
        batch = await anext(answer)
        await answer.aclose()
        return len(batch)

    started = time.monotonic()
    assert run(leave()) >= 1 and ended == [True]
    assert time.monotonic() - started < 10


def test_metrics_of_replicas_that_live():
    async def results_async(return_exceptions):
        return [b"# TYPE b gauge\nb 3.0\n", RayActorError()] if return_exceptions else None

    http, handle = front()
    handle.broadcast = lambda method: SimpleNamespace(results_async=results_async)
    response = http.get("/metrics")
    assert response.status_code == 200 and response.text.endswith("# TYPE b gauge\nb 3.0\n")


def test_merged_metrics():
    texts = [
        b'# HELP a_total A.\n# TYPE a_total counter\na_total{engine="x"} 1.0\n',
        b'# HELP a_total A.\n# TYPE a_total counter\na_total{engine="y"} 2.0\n'
        b'# HELP b B.\n# TYPE b gauge\nb{engine="y"} 3.0\n',
    ]
    assert merged(texts).decode().splitlines() == [
        "# HELP a_total A.",
        "# TYPE a_total counter",
        'a_total{engine="x"} 1.0',
        'a_total{engine="y"} 2.0',
        "# HELP b B.",
        "# TYPE b gauge",
        'b{engine="y"} 3.0',
    ]
