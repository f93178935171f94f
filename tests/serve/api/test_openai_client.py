"""The openai package against a real server over haast-tiny on the CPU."""

import json
import socket
import time

import httpx
import openai
import pytest

from ...lookup import TOOL
from .conftest import wait_until

EAGLE = [{"role": "user", "content": "What is a bald eagle?"}]
ANSWER = (
    "A bald eagle is a large eagle of North America that has a white head and dark wings and body."
)
GREEDY = {"model": "haast-tiny", "temperature": 0, "max_tokens": 80}


@pytest.fixture(scope="module")
def eagle(client):
    return client.chat.completions.create(
        messages=EAGLE, logprobs=True, top_logprobs=2, reasoning_effort="low", **GREEDY
    )


def test_chat(client, eagle):
    (choice,) = eagle.choices
    assert choice.message.content == ANSWER and choice.finish_reason == "stop"
    assert '"bald eagle"' in choice.message.reasoning and choice.message.tool_calls is None
    assert eagle.model == "haast-tiny" and eagle.object == "chat.completion"
    usage = eagle.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens
    assert [model.id for model in client.models.list()] == ["haast-tiny"]


def test_logprobs(eagle):
    tokens = eagle.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == ANSWER
    for token in tokens:
        assert token.logprob <= 0 and bytes(token.bytes).decode() == token.token
        assert len(token.top_logprobs) == 2
        assert token.top_logprobs[0].token == token.token, "greedy takes the likeliest"


def test_a_stream_is_the_answer_in_pieces(client, eagle):
    stream = client.chat.completions.create(
        messages=EAGLE,
        stream=True,
        stream_options={"include_usage": True},
        logprobs=True,
        top_logprobs=2,
        reasoning_effort="low",
        **GREEDY,
    )
    *chunks, last = stream
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(d.content or "" for d in deltas) == ANSWER
    thought = "".join(getattr(d, "reasoning", None) or "" for d in deltas)
    assert thought == eagle.choices[0].message.reasoning
    scored = [t for c in chunks if (p := c.choices[0].logprobs) for t in p.content]
    assert [t.token for t in scored] == [t.token for t in eagle.choices[0].logprobs.content]
    assert deltas[0].role == "assistant" and chunks[-1].choices[0].finish_reason == "stop"
    assert last.choices == [] and last.usage.completion_tokens == eagle.usage.completion_tokens
    assert last.usage.prompt_tokens == eagle.usage.prompt_tokens
    assert len(chunks) > 20


def test_tools(client):
    chat = [{"role": "user", "content": "What is a wombat?"}]
    asked = client.chat.completions.create(messages=chat, tools=[TOOL], **GREEDY).choices[0]
    assert asked.finish_reason == "tool_calls" and asked.message.content is None
    (call,) = asked.message.tool_calls
    assert call.function.name == "lookup"
    assert json.loads(call.function.arguments) == {"word": "wombat"}

    with client.chat.completions.stream(messages=chat, tools=[TOOL], **GREEDY) as stream:
        streamed = stream.get_final_completion().choices[0]
    (again,) = streamed.message.tool_calls
    assert (again.function.name, again.function.arguments) == (
        call.function.name,
        call.function.arguments,
    )
    assert streamed.finish_reason == "tool_calls"

    meaning = json.dumps({"definition": "large eagle of North America that has a white head"})
    chat += [
        asked.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": meaning},
    ]
    said = client.chat.completions.create(messages=chat, tools=[TOOL], **GREEDY).choices[0]
    assert said.finish_reason == "stop" and said.message.content.startswith("A wombat is")
    assert "eagle of North America" in said.message.content


def test_two_answers(client):
    settings = GREEDY | {"temperature": 4.0, "max_tokens": 12, "seed": 5}

    def texts():
        made = client.chat.completions.create(messages=EAGLE, n=2, **settings)
        assert [choice.index for choice in made.choices] == [0, 1]
        assert made.usage.completion_tokens <= 24
        return [c.message.model_dump_json() for c in made.choices]

    first = texts()
    assert texts() == first and first[0] != first[1]


def test_a_stop_string(client):
    made = client.chat.completions.create(messages=EAGLE, stop=[" that has"], **GREEDY)
    assert made.choices[0].message.content == ANSWER.split(" that has")[0]
    assert made.choices[0].finish_reason == "stop"


def test_an_answer_cut_while_thinking(client):
    made = client.chat.completions.create(messages=EAGLE, **(GREEDY | {"max_tokens": 8}))
    (choice,) = made.choices
    assert choice.finish_reason == "length" and choice.message.content == ""
    assert choice.message.reasoning and made.usage.completion_tokens == 8


def test_plain_completions_go_on_from_rendered_prompts(client, running):
    body = {"messages": EAGLE, "reasoning_effort": "low"}
    rendered = httpx.post(f"{running.url}/v1/chat/completions/render", json=body).json()
    prompt = rendered["prompt_token_ids"]
    made = client.completions.create(prompt=prompt, logprobs=1, **GREEDY)
    assert made.choices[0].text.endswith(f"final{ANSWER}")
    assert made.choices[0].finish_reason == "stop"
    assert len(made.choices[0].logprobs.tokens) == made.usage.completion_tokens - 1
    stream = client.completions.create(prompt=prompt, stream=True, **GREEDY)
    assert "".join(chunk.choices[0].text for chunk in stream) == made.choices[0].text


@pytest.mark.parametrize(
    "changes, kind",
    [
        ({"model": "gpt-5"}, openai.NotFoundError),
        ({"response_format": {"type": "xml"}}, openai.BadRequestError),
        ({"max_tokens": 10_000}, openai.BadRequestError),
        ({"messages": []}, openai.BadRequestError),
    ],
)
def test_errors(client, changes, kind):
    with pytest.raises(kind) as error:
        client.chat.completions.create(**({"messages": EAGLE} | GREEDY | changes))
    assert error.value.body["message"] and error.value.param.split(".")[0] in {*changes, "messages"}


def test_a_client_that_leaves_frees_the_engine(running):
    body = json.dumps({"messages": EAGLE, "stream": True, "ignore_eos": True} | {"max_tokens": 500})
    ended = running.app.state.service.metrics.ended
    before = ended["abort"]
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall((head + body).encode())
        received = b""
        while b"reasoning" not in received:
            received += connection.recv(4096)
        wait_until(lambda: running.client.stats().num_running == 1)
    left = time.monotonic()
    wait_until(lambda: running.client.stats().num_running == 0)
    assert time.monotonic() - left < 5
    assert ended["abort"] == before + 1


def test_health_and_metrics(running, eagle):
    assert httpx.get(f"{running.url}/health").json() == {"status": "ok"}
    text = httpx.get(f"{running.url}/metrics").text
    assert 'vllm:request_success_total{engine="0",finished_reason="stop"' in text
