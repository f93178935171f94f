"""Reads answers of /v1/responses, and checks all that must hold of any of them."""

import json
from typing import Any, get_args

from openai._types import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent

from .conftest import Api

PATH = "/v1/responses"
KINDS = {
    get_args(kind.model_fields["type"].annotation)[0]: kind
    for kind in get_args(get_args(ResponseStreamEvent)[0])
}
LIFE = ("created", "queued", "in_progress", "completed", "incomplete", "failed")
TEXTS = {"message": "output_text", "reasoning": "reasoning_text"}


def respond(api: Api, **body) -> Any:
    return api.post(PATH, **({"input": "Hello"} | body))


def whole(api: Api, **body) -> dict:
    """A response in one piece, which is what openai's types say."""
    response = respond(api, **body)
    assert response.status_code == 200, response.text
    Response.model_validate_json(response.text, strict=True)
    return response.json()


def streamed(api: Api, **body) -> list[dict]:
    return told(respond(api, stream=True, **body))


def told(response, first: int = 0) -> list[dict]:
    """Events of a stream: named by their type, numbered, as strict as openai's types."""
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    *blocks, end = response.text.split("\n\n")
    assert end == ""
    events = []
    for block in blocks:
        if block[:1] == ":":
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        KINDS[event["type"]].model_validate_json(json.dumps(event), strict=True)
        events.append(event)
    assert [e["sequence_number"] for e in events] == list(range(first, first + len(events)))
    return events


def final(events: list[dict]) -> dict:
    """The response at the end of a whole stream, after checking that the events add up to it."""
    assert events[0]["type"] == "response.created" and events[0]["response"]["output"] == []
    last = events[-1]["response"]
    assert events[-1]["type"] == f"response.{last['status']}"
    assert last["status"] in ("completed", "incomplete", "failed")
    assert folded(events) == last["output"]
    oracle = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events:
        oracle.handle_event(KINDS[event["type"]].model_validate(event))
    if last["status"] == "completed":
        assert json.loads(oracle._completed_response.to_json()) == with_parsed(last)
    for earlier in events[:-1]:
        if "response" in earlier:
            assert (
                earlier["response"].keys() == last.keys() and earlier["response"]["usage"] is None
            )
    return last


def with_parsed(response: dict) -> dict:
    """As openai's accumulator shows it: with a place for what it parsed."""
    response = json.loads(json.dumps(response))
    for item in response["output"]:
        if item["type"] == "function_call":
            item["parsed_arguments"] = None
        for part in item.get("content", ()) if item["type"] == "message" else ():
            part["parsed"] = None
    return response


def folded(events: list[dict]) -> list[dict]:
    """Items that events tell of: they open and close as brackets do, and what is done is the sum
    of its deltas."""
    items: list[dict] = []
    stack: list[tuple[str, Any]] = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind in LIFE:
            assert not stack, "nothing is open around the events of the response"
            continue
        place = {"output_index": len(items)}
        if kind == "output_item.added":
            assert not stack and event["item"]["status"] == "in_progress"
            assert not event["item"].get("content") and not event["item"].get("arguments")
            stack.append(("item", event["item"]))
            if event["item"]["type"] == "function_call":
                stack.append(("text", []))
        else:
            item = stack[0][1]
            _inside(event, kind, item, stack)
            if kind == "output_item.done":
                items.append(event["item"])
                assert event["item"]["id"] == item["id"] and not stack
            else:
                place["item_id"] = item["id"]
        assert {key: event[key] for key in place} == place
    assert not stack
    return items


def _inside(event: dict, kind: str, item: dict, stack: list) -> None:
    text = "function_call_arguments" if item["type"] == "function_call" else TEXTS[item["type"]]
    if kind == "content_part.added":
        assert stack[-1][0] == "item" and event["part"]["type"] == text
        assert event["part"]["text"] == "" and event["content_index"] == 0
        stack += [("part", event["part"]), ("text", [])]
    elif kind == f"{text}.delta":
        assert stack[-1][0] == "text" and event["delta"] != ""
        stack[-1][1].append(event)
    elif kind == f"{text}.done":
        name, deltas = stack.pop()
        assert name == "text"
        said = event["arguments" if item["type"] == "function_call" else "text"]
        assert said == "".join(delta["delta"] for delta in deltas)
        scored = [entry for delta in deltas for entry in delta.get("logprobs", ())]
        assert event.get("logprobs", []) == scored
        stack.append(("said", (said, scored)))
    elif kind == "content_part.done":
        (_, (said, scored)), (name, _) = stack.pop(), stack.pop()
        assert name == "part" and event["part"]["text"] == said
        assert event["part"].get("logprobs", []) == scored
        stack.append(("whole", event["part"]))
    else:
        assert kind == "output_item.done", kind
        (name, end), (item_name, _) = stack.pop(), stack.pop()
        assert item_name == "item"
        if name == "said":
            assert event["item"]["arguments"] == end[0]
        else:
            assert name == "whole" and event["item"]["content"] == [end]


def refused(api: Api, **body) -> tuple[str | None, str]:
    """Field and message of a 400; the engine was asked nothing."""
    before = len(api.engine.asked)
    response = respond(api, **body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error" and len(api.engine.asked) == before
    assert "\n" not in error["message"]
    return error["param"], error["message"]


def texts(response: dict) -> list[tuple[str, str]]:
    """(what it is, its text) of each item of the output."""
    shown = []
    for item in response["output"]:
        if item["type"] == "function_call":
            shown.append((item["name"], item["arguments"]))
        else:
            (part,) = item["content"]
            shown.append((item.get("phase", item["type"]), part["text"]))
    return shown
