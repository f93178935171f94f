"""The load client: what it reads, how many it has under way, what it counts as an error."""

import json

import pytest
import uvloop

from haast.bench.load.level import run_level
from haast.bench.load.prompts import Requests
from haast.bench.load.reading import Reading
from haast.bench.load.target import LoadError, model_name, parse_url, server_version

from .streaming_server import DONE, END, HEAD, chunk, event, scripted, stream, usage_event, whole

ASKED = Requests("m", input_len=6, output_len=3, vocab_size=50, seed=4)
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
TEXT = event(choices=[{"text": "a", "index": 0}])


def level(script, concurrency=2, count=6, timeout_s=20.0):
    """(Level, Scripted) of requests to a script."""
    with scripted(script) as (url, played):
        bodies = [ASKED.body(number) for number in range(count)]
        work = run_level(parse_url(url, None), ASKED, concurrency, bodies, timeout_s)
        return uvloop.run(work), played


def errors_of(items) -> set[str | None]:
    return {o.error for o in level(lambda path, body: items, count=2)[0].outcomes}


def read(*parts: bytes) -> Reading:
    reading = Reading()
    reading.status = 200
    for part in parts:
        reading.on_body(part)
    return reading


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_events_are_found_however_the_stream_is_cut(newline):
    events = [
        b": ping\n\n",
        event(choices=[{"delta": {"role": "assistant", "content": ""}}]),
        event(choices=[{"delta": {"reasoning": "a"}}]),
        event(choices=[{"delta": {"reasoning_content": "b"}}]),
        event(choices=[{"delta": {"content": "c\n\nd"}}], usage=None),
        event(choices=[{"delta": {"tool_calls": [{"index": 0}]}}]),
        event(choices=[{"text": "e", "logprobs": None}, {"text": "f"}]),
        event(choices=[{"text": "", "finish_reason": "length"}]),
        usage_event(9, cached=4),
        DONE,
    ]
    data = b"".join(events).replace(b"\n", newline)
    for cut in range(len(data) + 1):
        reading = read(data[:cut], data[cut:])
        assert len(reading.arrivals) == 5 and reading.is_done and reading.error is None, cut
        assert reading.usage.completion_tokens == 9
        assert reading.usage.prompt_tokens_details.cached_tokens == 4
    singly = read(*(data[at : at + 1] for at in range(len(data))))
    assert len(singly.arrivals) == 5 and singly.arrivals == sorted(set(singly.arrivals))


def test_errors_within_a_stream():
    assert read(event(error={"message": "no\nengine", "code": 503})).error == "no engine"
    assert read(event(error="gone"), event(error="later")).error == "gone"
    assert read(b"data: {oops\n\n").error.startswith("an event that is no chunk: ")


def test_bodies_ask_for_an_exact_length_of_a_prompt_that_no_other_has():
    bodies = [json.loads(ASKED.body(*key)) for key in ((0, 0), (0, 1), (1, 0))]
    prompts = [body["prompt"] for body in bodies]
    assert all(len(p) == 6 and all(0 <= i < 50 for i in p) for p in prompts)
    assert len({tuple(prompt) for prompt in prompts}) == 3
    assert bodies[0] == json.loads(ASKED.body(0, 0))
    assert bodies[0] == {
        "model": "m",
        "prompt": prompts[0],
        "max_tokens": 3,
        "min_tokens": 3,
        "ignore_eos": True,
        "temperature": 1.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    other = Requests("m", input_len=6, vocab_size=50, seed=5)
    assert json.loads(other.body(0, 0))["prompt"] != prompts[0]
    chat = json.loads(Requests("m", "chat", input_len=6).body(0))
    assert len(chat["messages"][0]["content"].split()) == 3 and "prompt" not in chat


def test_so_many_at_once_over_connections_that_are_kept():
    found, played = level(lambda path, body: stream(3, 0.03), concurrency=3, count=9)
    assert [o.error for o in found.outcomes] == [None] * 9
    assert (played.most_at_once, played.num_connections) == (3, 3)
    assert sorted(played.bodies) == sorted(ASKED.body(number) for number in range(9))
    for outcome in found.outcomes:
        times = [outcome.started, *outcome.arrivals, outcome.ended]
        assert times == sorted(times) and len(times) == 5
        assert times[3] - times[0] >= 0.06 and outcome.usage.completion_tokens == 3
    assert found.wall_s >= 3 * 0.09 and found.busy_s > 0


def test_a_level_of_fewer_requests_than_slots():
    found, played = level(lambda path, body: stream(3), concurrency=5, count=2)
    assert [o.error for o in found.outcomes] == [None] * 2 and played.num_connections == 2


def test_a_server_that_closes_after_each_answer():
    items = [PLAIN, TEXT + usage_event(3) + DONE, None]
    found, played = level(lambda path, body: items, concurrency=2, count=6)
    assert [o.error for o in found.outcomes] == [None] * 6 and played.num_connections == 6


@pytest.mark.parametrize(
    "items, message",
    [
        (whole({"error": {"message": "no such\nmodel"}}, "404 Not Found"), "404: no such model"),
        (whole({"message": "old vLLM"}, "400 Bad Request"), "400: old vLLM"),
        ([b"HTTP/1.1 502 Bad\r\nContent-Length: 6\r\n\r\nbroken"], "502: broken"),
        ([HEAD, chunk(TEXT), None], "the server closed the connection"),
        ([None], "the server closed the connection"),
        ([b"SSH-2.0-x\r\n\r\n"], "the server does not speak HTTP/1.1: "),
        ([HEAD, chunk(TEXT + usage_event(3)) + END], "the stream ended without [DONE]"),
        ([HEAD, chunk(TEXT + DONE) + END], "the stream told no usage"),
        ([HEAD, chunk(TEXT + usage_event(2) + DONE) + END], "2 tokens came, 3 were asked for"),
        ([HEAD, chunk(usage_event(3) + DONE) + END], "no text came"),
        ([HEAD, chunk(event(error={"message": "it broke"}) + DONE) + END], "it broke"),
    ],
)
def test_what_is_no_answer(items, message):
    found = errors_of(items)
    assert len(found) == 1 and found.pop().startswith(message)


def test_an_answer_that_does_not_come():
    found, _ = level(lambda path, body: [HEAD, chunk(TEXT), 60.0], 2, 3, timeout_s=0.05)
    assert [o.error for o in found.outcomes] == ["no whole answer in 0.05 s"] * 3


def test_some_fail_and_the_others_count():
    def script(path, body):
        bad = json.loads(body)["prompt"] == json.loads(ASKED.body(1))["prompt"]
        return whole({"error": "busy"}, "429 Too Many Requests") if bad else stream(3)

    found, _ = level(script, concurrency=1, count=3)
    assert [o.error for o in found.outcomes] == [None, "429: busy", None]


@pytest.mark.parametrize(
    "url, text, prefix",
    [
        ("localhost:8123", "http://localhost:8123", ""),
        ("http://h", "http://h:80", ""),
        ("https://h/v1/", "https://h:443", ""),
        ("http://h:9/proxy/v1", "http://h:9/proxy", "/proxy"),
        ("http://[::1]:9", "http://[::1]:9", ""),
    ],
)
def test_urls(url, text, prefix):
    target = parse_url(url, "key")
    assert str(target) == text and target.prefix == prefix
    head = target.request("POST", "/v1/x", b"{}").decode()
    assert head.startswith(f"POST {prefix}/v1/x HTTP/1.1\r\nHost: ")
    assert head.endswith("Authorization: Bearer key\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h:x", "http://h?a=b"])
def test_what_is_no_url(url):
    with pytest.raises(LoadError):
        parse_url(url, None)
    with pytest.raises(LoadError, match="--api-key"):
        parse_url("http://h", "a\r\nb")


def test_what_the_server_says_of_itself():
    def script(path, body):
        answers = {"/v1/models": {"data": [{"id": "a/b"}]}, "/version": {"version": "9"}}
        return whole(answers[path])

    with scripted(script) as (url, _):
        assert uvloop.run(model_name(parse_url(url, None))) == "a/b"
        assert uvloop.run(server_version(parse_url(url, None))) == "9"
    for body, words in (({"data": []}, "names no model"), ([], "not what a model server says")):
        with (
            scripted(lambda path, asked, body=body: whole(body)) as (url, _),
            pytest.raises(LoadError, match=words),
        ):
            uvloop.run(model_name(parse_url(url, None)))
    with pytest.raises(LoadError, match=f"^cannot reach {url}: "):
        uvloop.run(model_name(parse_url(url, None)))
    assert uvloop.run(server_version(parse_url(url, None))) is None
