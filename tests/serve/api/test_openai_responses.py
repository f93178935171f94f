"""The openai package's Responses API against a real server over haast-tiny on the CPU."""

import json
import time

import httpx
import openai
import pytest

from ...lookup import TOOL as NESTED
from .conftest import wait_until
from .test_openai_client import ANSWER
from .told import final, told

ASK = "What is a bald eagle?"
TOOL = {"type": "function", **NESTED["function"]}
GREEDY = {"model": "haast-tiny", "temperature": 0, "max_output_tokens": 80}


@pytest.fixture(scope="module")
def eagle(client):
    return client.responses.create(input=ASK, reasoning={"effort": "low"}, **GREEDY)


def test_create(client, eagle):
    assert eagle.output_text == ANSWER and eagle.status == "completed"
    thought, said = eagle.output
    assert '"bald eagle"' in thought.content[0].text and said.phase == "final_answer"
    usage = eagle.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert 0 < usage.output_tokens_details.reasoning_tokens < usage.output_tokens
    assert client.responses.retrieve(eagle.id) == eagle
    (item,) = client.responses.input_items.list(eagle.id)
    assert item.content[0].text == ASK


def test_a_stream_is_what_is_stored(client, eagle):
    with client.responses.stream(input=ASK, reasoning={"effort": "low"}, **GREEDY) as stream:
        events = list(stream)
        made = stream.get_final_response()
    assert made.output_text == ANSWER and made.usage.output_tokens == eagle.usage.output_tokens
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    said = [e for e in events if e.type == "response.output_text.delta"]
    assert "".join(e.delta for e in said) == ANSWER == said[-1].snapshot and len(said) > 10
    thought = [e.delta for e in events if e.type == "response.reasoning_text.delta"]
    assert "".join(thought) == eagle.output[0].content[0].text
    stored = client.responses.retrieve(made.id)
    assert stored.output_text == ANSWER and stored.id == made.id
    body = GREEDY | {"input": ASK, "stream": True, "include": ["message.output_text.logprobs"]}
    shown = final(told(httpx.post(f"{client.base_url}responses", json=body)))
    assert client.responses.retrieve(shown["id"]).to_dict() == shown
    scored = shown["output"][1]["content"][0]["logprobs"]
    assert "".join(entry["token"] for entry in scored) == ANSWER


@pytest.mark.parametrize("by_id", [True, False])
def test_a_tool_loop(client, by_id):
    ask = [{"role": "user", "content": "What is a wombat?"}]
    asked = client.responses.create(input=ask, tools=[TOOL], **GREEDY)
    call = asked.output[-1]
    assert call.type == "function_call" and call.name == "lookup"
    assert json.loads(call.arguments) == {"word": "wombat"} and asked.status == "completed"
    meaning = json.dumps({"definition": "large eagle of North America that has a white head"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": meaning}
    if by_id:
        history = {"input": [result], "previous_response_id": asked.id}
    else:
        history = {"input": [*ask, *(item.to_dict() for item in asked.output), result]}
    said = client.responses.create(tools=[TOOL], **history, **GREEDY)
    assert said.output_text.startswith("A wombat is")
    assert "eagle of North America" in said.output_text
    with client.responses.stream(tools=[TOOL], **history, **GREEDY) as stream:
        assert stream.get_final_response().output_text == said.output_text


def test_a_conversation(client, eagle):
    ask = "What is a piano?"
    by_id = client.responses.create(input=ask, previous_response_id=eagle.id, **GREEDY)
    items = [{"role": "user", "content": ASK}, *(item.to_dict() for item in eagle.output)]
    by_items = client.responses.create(
        input=[*items, {"role": "user", "content": ask}], store=False, **GREEDY
    )
    assert by_id.output_text == by_items.output_text != ""
    assert by_id.usage.input_tokens == by_items.usage.input_tokens > eagle.usage.input_tokens
    kinds = [item.type for item in client.responses.input_items.list(by_id.id, order="asc")]
    assert kinds == ["message", "reasoning", "message", "message"]
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{by_items.id}' not found."):
        client.responses.retrieve(by_items.id)


def test_an_answer_cut_while_thinking(client):
    made = client.responses.create(input=ASK, **(GREEDY | {"max_output_tokens": 8}))
    assert made.status == "incomplete" and made.output_text == ""
    assert made.incomplete_details.reason == "max_output_tokens"
    assert made.usage.output_tokens == 8 and made.output[0].type == "reasoning"


def test_background(client, running, eagle):
    made = client.responses.create(
        input=ASK, background=True, reasoning={"effort": "low"}, **GREEDY
    )
    assert made.status == "queued"
    wait_until(lambda: client.responses.retrieve(made.id).status == "completed")
    assert client.responses.retrieve(made.id).output_text == ANSWER
    endless = GREEDY | {"max_output_tokens": 500, "extra_body": {"ignore_eos": True}}
    stream = client.responses.create(input=ASK, background=True, stream=True, **endless)
    name = next(iter(stream)).response.id
    wait_until(lambda: client.responses.retrieve(name).status == "in_progress")
    stream.close()
    time.sleep(0.1)
    assert running.client.stats().num_running == 1, "the reader left, the response goes on"
    with client.responses.stream(response_id=name, starting_after=2) as again:
        assert next(iter(again)).sequence_number == 3
    assert client.responses.cancel(name).status == "cancelled"
    assert client.responses.retrieve(name).status == "cancelled"
    wait_until(lambda: running.client.stats().num_running == 0)


def test_delete(client):
    made = client.responses.create(input=ASK, **(GREEDY | {"max_output_tokens": 4}))
    assert client.responses.delete(made.id) is None
    with pytest.raises(openai.NotFoundError, match="not found"):
        client.responses.delete(made.id)
    with pytest.raises(openai.BadRequestError, match="not found") as error:
        client.responses.create(input=ASK, previous_response_id=made.id, **GREEDY)
    assert error.value.code == "previous_response_not_found"


def test_input_tokens(client, eagle):
    counted = client.responses.input_tokens.count(
        input=ASK, model="haast-tiny", reasoning={"effort": "low"}
    )
    assert counted.input_tokens == eagle.usage.input_tokens


@pytest.mark.parametrize(
    "changes",
    [
        {"text": {"format": {"type": "xml"}}},
        {"tool_choice": "required"},
        {"max_output_tokens": 10_000},
        {"input": [{"type": "web_search_call"}]},
    ],
)
def test_errors(client, changes):
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(**({"input": ASK} | GREEDY | changes))
    assert error.value.param.split(".")[0].split("[")[0] in {*changes, "input"}
