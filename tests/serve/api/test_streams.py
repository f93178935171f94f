"""Streams at the level of ASGI: pings, clients that go away, usage."""

import asyncio
import json

import pytest

from haast.engine.request import QueueFullError

from ..fake_client import FakeClient, tokens
from .conftest import HELLO, Api, events
from .spoken import SPECIAL, TOKENIZER, message, news, says, thought_and_said

WORDS = message("final", "one two three four")
BODIES = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Hello"},
}


class Client:
    """One request; what the application sent, and when the client is to leave."""

    def __init__(self, api: Api, path: str, **body) -> None:
        self.app = api.http.app
        self.data = json.dumps(BODIES.get(path, {}) | body).encode()
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [],
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
            "server": ("t", 80),
            "client": ("c", 1),
            "root_path": "",
            "asgi": {"version": "3.0"},
        }
        self.sent: list[dict] = []
        self.leaves = asyncio.Event()
        self.has_asked = False

    async def receive(self):
        if not self.has_asked:
            self.has_asked = True
            return {"type": "http.request", "body": self.data, "more_body": False}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message) -> None:
        self.sent.append(message)

    @property
    def text(self) -> str:
        return b"".join(m.get("body", b"") for m in self.sent).decode()


async def leave_when(client: Client, engine: FakeClient, holds) -> None:
    running = asyncio.create_task(client.app(client.scope, client.receive, client.send))
    while not holds(client):
        assert not running.done()
        await asyncio.sleep(0.005)
    assert engine.num_open > 0
    client.leaves.set()
    await asyncio.wait_for(running, 1)


def is_asked(api: Api):
    return lambda client: bool(api.engine.asked)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_token_cancels(path, stream):
    api = Api(lambda prompt, params: [20.0])
    client = Client(api, path, stream=stream)
    asyncio.run(leave_when(client, api.engine, is_asked(api)))
    assert (api.engine.num_open, api.engine.num_cancelled) == (0, 1)
    assert api.service.metrics.ended == {"abort": 1}


@pytest.mark.parametrize("path", BODIES)
def test_a_client_that_leaves_in_the_middle_cancels(path):
    api = Api(lambda prompt, params: [*news(WORDS, params)[:-2], 20.0])
    client = Client(api, path, stream=True)
    asyncio.run(leave_when(client, api.engine, lambda client: "two" in client.text))
    assert (api.engine.num_open, api.engine.num_cancelled) == (0, 1)
    assert "DONE" not in client.text


def test_a_client_that_leaves_while_it_sends(api, caplog):
    client = Client(api, "/v1/completions")
    client.has_asked = True
    client.leaves.set()
    asyncio.run(client.app(client.scope, client.receive, client.send))
    assert client.sent[0]["status"] == 499 and not caplog.records


def test_all_prompts_of_a_client_that_leaves_are_cancelled():
    api = Api(lambda prompt, params: [20.0])
    client = Client(api, "/v1/completions", prompt=[[1], [2], [3]])
    asyncio.run(leave_when(client, api.engine, lambda client: len(api.engine.asked) == 3))
    assert (api.engine.num_open, api.engine.num_cancelled) == (0, 3)


def test_a_stop_string_cancels_the_rest():
    api = Api(lambda prompt, params: [*news([*WORDS, *WORDS], params)[:-1], 20.0])
    (choice,) = api.chat(stop=" three").json()["choices"]
    assert choice["message"]["content"] == "one two"
    assert (api.engine.num_open, api.engine.num_cancelled) == (0, 1)


@pytest.mark.parametrize("prompts", [1, 2])
def test_a_stop_string_cancels_its_answer_alone(prompts):
    """Of several; the last one ends the call instead."""
    ids = {0: TOKENIZER.encode("a b c d"), 1: TOKENIZER.encode("a c b d")}

    def script(prompt, params):
        return [tokens(ids[i][at], index=i) for at in range(4) for i in ids] + [20.0]

    api = Api(script)
    made = api.complete(prompt=[[1]] * prompts, n=2, stop=" c", max_tokens=9)
    assert [choice["text"] for choice in made.json()["choices"]] == ["a b", "a"] * prompts
    # the answer with the early end is cancelled; of several prompts also the others, but one
    assert sorted(api.engine.cancelled) == {1: [1], 2: [0, 1, 1]}[prompts]
    assert (api.engine.num_open, api.engine.num_cancelled) == (0, prompts)


@pytest.mark.parametrize("path", BODIES)
def test_a_silent_stream_pings(path):
    def script(prompt, params):
        first, *others = news([*WORDS, SPECIAL.return_], params)
        return [0.25, first, *others]

    api = Api(script, ping_s=0.1)
    response = api.post(path, **BODIES[path], stream=True)
    assert response.text.startswith(": ping\n\n: ping\n\n")
    assert "".join(texts(events(response))).endswith("one two three four")
    api = Api(script, ping_s=10.0)
    assert "ping" not in api.post(path, **BODIES[path], stream=True).text


def texts(documents) -> list[str]:
    choices = [choice for document in documents for choice in document["choices"]]
    return [c["text"] if "text" in c else c["delta"].get("content", "") for c in choices]


def test_an_error_after_a_ping_is_an_event():
    api = Api(lambda prompt, params: [0.15, QueueFullError("full")], ping_s=0.05)
    (document,) = events(api.chat(stream=True))
    assert document["error"]["code"] == "queue_full"


@pytest.mark.parametrize("path", BODIES)
def test_usage_comes_last_if_asked_for(path):
    script = says(thought_and_said("Hm.", "Hello there."), at_once=3)

    def streamed(**options):
        return events(Api(script).post(path, **BODIES[path], stream=True, **options))

    whole = Api(script).post(path, **BODIES[path]).json()["usage"]
    options = {"include_usage": True}
    *chunks, last = streamed(stream_options=options)
    assert last["choices"] == [] and last["usage"] == whole
    assert all(chunk["usage"] is None for chunk in chunks)
    *chunks, last = streamed(stream_options=options | {"continuous_usage_stats": True})
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts) and counts[-1] == last["usage"]["completion_tokens"]
    assert counts[0] < counts[-1]
    for without in ({}, {"stream_options": {"include_usage": False}}):
        assert all("usage" not in chunk for chunk in streamed(**without))


def test_chunks_of_a_stream_have_one_head(api):
    chunks = events(api.chat(stream=True))
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1
    assert chunks[0]["id"].startswith("chatcmpl-")
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [c["choices"][0]["finish_reason"] for c in chunks[-2:]] == [None, "stop"]


def test_a_character_in_two_tokens_is_never_sent_in_halves():
    ids = TOKENIZER.encode("𝔊")
    assert len(ids) > 1
    chunks = events(Api(says([*message("final", "𝔊"), SPECIAL.return_])).chat(stream=True))
    assert [text for text in texts(chunks) if text] == ["𝔊"]
