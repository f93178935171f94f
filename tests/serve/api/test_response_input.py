"""/v1/responses: from items to the prompt, and conversations that go on."""

import json

import pytest
from openai.types.responses import ResponseItemList

from haast.serve.responses_api.items import encode_reasoning

from .conftest import Api
from .spoken import NEXT, SPECIAL, TOKENIZER, call, message, says, thought_and_said
from .told import refused, respond, whole

USER = {"role": "user", "content": "Hello"}
TOOLS = [{"type": "function", "name": "lookup"}]
CALL = {"type": "function_call", "call_id": "c1", "name": "lookup", "arguments": '{"a": 1}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "A bird."}
THOUGHT = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]}
LOOP = [*message("analysis", "Hm."), *NEXT, *message("commentary", "Let me see."), *NEXT]
LOOP += [*message("analysis", "So."), *NEXT, *call('{"word": "wombat"}')]


def said(text: str, **more) -> dict:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "role": "assistant", "content": [part], **more}


def ids(api: Api, **body) -> list[int]:
    whole(api, **body)
    return api.engine.asked[-1].prompt_ids


def prompt(api: Api, **body) -> str:
    """The conversation after the system message."""
    return TOKENIZER.decode(ids(api, **body)).split("<|end|>", 1)[1]


def test_a_string_is_a_message_of_the_user(api):
    parts = [{"type": "input_text", "text": "Hel"}, {"type": "input_text", "text": "lo"}]
    expected = "<|start|>user<|message|>Hello<|end|><|start|>assistant"
    for given in ("Hello", [USER], [USER | {"type": "message"}], [USER | {"content": parts}]):
        assert prompt(api, input=given) == expected


def test_instructions_come_first_and_join_developers(api):
    given = [{"role": "system", "content": "B"}, USER, {"role": "developer", "content": "C"}]
    text = prompt(api, input=given, instructions="A")
    assert "# Instructions\n\nA\n\nB\n\nC<|end|><|start|>user" in text


def test_a_tool_loop_keeps_thoughts_and_tells_preambles_apart(api):
    given = [USER, THOUGHT, said("Let me see."), THOUGHT, CALL, RESULT]
    expected = (
        "<|start|>user<|message|>Hello<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Hm.<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>Let me see.<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Hm.<|end|>"
        "<|start|>assistant to=functions.lookup<|channel|>commentary json<|message|>"
        '{"a": 1}<|call|>'
        "<|start|>functions.lookup to=assistant<|channel|>commentary<|message|>A bird.<|end|>"
        "<|start|>assistant"
    )
    assert prompt(api, input=given) == expected
    with_phase = [USER, THOUGHT, said("Let me see.", phase="commentary"), *given[3:]]
    assert prompt(api, input=with_phase) == expected


def test_thoughts_of_finished_turns_are_dropped(api):
    given = [USER, THOUGHT, CALL, RESULT, THOUGHT, said("A."), USER]
    text = prompt(api, input=given)
    assert "Hm." not in text and "<|channel|>final<|message|>A.<|end|><|start|>user" in text
    assert "to=functions.lookup" in text


def test_what_is_said_and_then_a_call_in_a_later_turn(api):
    text = prompt(api, input=[USER, said("A."), USER, CALL, RESULT])
    assert "<|channel|>final<|message|>A.<|end|>" in text
    assert "commentary<|message|>B" in prompt(api, input=[USER, said("B"), CALL, RESULT])
    explicit = [USER, said("C", phase="final_answer"), CALL, RESULT]
    assert "final<|message|>C" in prompt(api, input=explicit)


def test_an_output_of_parts(api):
    parts = [{"type": "input_text", "text": "A "}, {"type": "input_text", "text": "fish."}]
    text = prompt(api, input=[USER, CALL, RESULT | {"output": parts}])
    assert "<|message|>A fish.<|end|>" in text


def test_reasoning_comes_back_encoded_too(api):
    api.engine.script = says(LOOP)
    include = ["reasoning.encrypted_content"]
    made = whole(api, include=include, store=False, tools=TOOLS)["output"]
    assert made[0]["encrypted_content"] == encode_reasoning("Hm.")
    sealed = [
        {"type": "reasoning", "summary": [], "encrypted_content": item["encrypted_content"]}
        if item["type"] == "reasoning"
        else item
        for item in made
    ]
    result = RESULT | {"call_id": made[-1]["call_id"]}
    open_ids = ids(api, input=[USER, *made, result])
    assert ids(api, input=[USER, *sealed, result]) == open_ids
    assert TOKENIZER.decode(open_ids).count("<|channel|>analysis<|message|>") == 2
    assert "encrypted_content" not in whole(api)["output"][0]
    only_summary = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "S"}]}
    assert ids(api, input=[USER, only_summary]) == ids(api, input=[USER])


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_goes_on_by_id_as_it_does_by_items(api, stream):
    """Tool loop and finished turns alike; instructions are of one request alone."""
    given, previous = [USER], None
    scripts = [LOOP, thought_and_said("Aha.", "A bird."), thought_and_said("Hm.", "Yes.")]
    for number, script in enumerate(scripts):
        api.engine.script = says(script)
        by_items = ids(api, input=given, tools=TOOLS, instructions=f"I{number}")
        new = given if previous is None else given[-1:]
        body = {"input": new, "previous_response_id": previous, "instructions": f"I{number}"}
        response = respond(api, **body, tools=TOOLS, stream=stream)
        assert api.engine.asked[-1].prompt_ids == by_items
        if stream:
            shown = json.loads(response.text.strip().split("data: ")[-1])["response"]
        else:
            shown = response.json()
        assert shown["previous_response_id"] == previous
        previous, made = shown["id"], shown["output"]
        answers = [RESULT | {"call_id": m["call_id"]} for m in made if "call_id" in m]
        given = [*given, *made, *(answers or [USER])]
    listed = api.http.get(f"/v1/responses/{previous}/input_items?order=asc&limit=100")
    ResponseItemList.model_validate_json(listed.text, strict=True)
    kinds = [item["type"] for item in listed.json()["data"]]
    assert kinds == [item.get("type", "message") for item in given[:-3]]


def test_items_may_be_referred_to(api):
    made = whole(api)
    thought, answer = made["output"]
    for reference in ({"type": "item_reference", "id": answer["id"]}, {"id": answer["id"]}):
        assert ids(api, input=[USER, reference, USER]) == ids(api, input=[USER, answer, USER])
    loop = [USER, {"id": thought["id"]}]
    assert "<|channel|>analysis<|message|>Hm.<|end|>" in prompt(api, input=loop)
    unstored = whole(api, store=False)["output"][1]["id"]
    for name in (unstored, "msg_none"):
        response = respond(api, input=[{"id": name}])
        assert response.status_code == 404 and response.json()["error"]["param"] == "input"
        assert response.json()["error"]["message"].startswith(f"Item with id {name!r} not found.")


def test_a_previous_response_that_is_not_there(api):
    for name in ("resp_none", whole(api, store=False)["id"]):
        response = respond(api, previous_response_id=name)
        assert response.status_code == 400
        assert response.json()["error"] == {
            "message": f"Previous response with id {name!r} not found.",
            "type": "invalid_request_error",
            "param": "previous_response_id",
            "code": "previous_response_not_found",
        }
    assert whole(api, input=None, previous_response_id=whole(api)["id"])["status"] == "completed"


def test_the_oldest_turns_go_if_the_client_wishes(api):
    turn = [{"role": "user", "content": "old " * 200}, said("Yes.")]
    given = [{"role": "developer", "content": "Rules."}, *turn, *turn, *turn, USER]
    assert refused(api, input=given)[0] == "input"
    kept = ids(api, input=given, truncation="auto")
    assert kept == ids(api, input=[given[0], *turn, *turn, USER])
    assert ids(api, input=given, truncation="auto", max_output_tokens=300) == ids(
        api, input=[given[0], *turn, USER]
    )
    assert ids(api, input=[USER], truncation="auto") == ids(api, input=[USER])
    too_long = [*turn, {"role": "user", "content": "new " * 700}]
    assert refused(api, input=too_long, truncation="auto")[0] == "input"


IMAGE = {"type": "input_image", "image_url": "data:"}
WRONG = [
    ({"type": "web_search_call"}, "input[0].type"),
    ({"type": 7}, "input[0].type"),
    ({}, "input[0].id"),
    ({"role": "robot", "content": ""}, "input[0].role"),
    ({"role": "user"}, "input[0].content"),
    ({"role": "user", "content": 7}, "input[0].content"),
    ({"role": "user", "content": [7]}, "input[0].content[0]"),
    ({"role": "user", "content": [IMAGE]}, "input[0].content[0].type"),
    ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
    (USER | {"id": 7}, "input[0].id"),
    (USER | {"status": "good"}, "input[0].status"),
    (said("A.", phase="loud"), "input[0].phase"),
    (THOUGHT | {"content": "Hm."}, "input[0].content"),
    (THOUGHT | {"summary": [{"type": "text", "text": ""}]}, "input[0].summary[0].type"),
    ({"type": "reasoning", "encrypted_content": "gAAAA"}, "input[0].encrypted_content"),
    ({"type": "reasoning", "encrypted_content": "haast-reasoning-1:é"}, "input[0].encrypted"),
    (CALL | {"arguments": None}, "input[0].arguments"),
    (CALL | {"call_id": 7}, "input[0].call_id"),
    (CALL | {"name": "a b"}, "input[0].name"),
    (RESULT | {"output": None}, "input[0].output"),
    (RESULT, "input"),
]


@pytest.mark.parametrize("item, param", WRONG, ids=lambda value: str(value)[:60])
def test_items_that_are_refused(api, item, param):
    named, text = refused(api, input=[item])
    assert named.startswith(param)
    if item is RESULT:
        assert text == "No tool call found for function call output with call_id c1."


def test_a_wrong_item_is_named_behind_others(api):
    previous = whole(api)["id"]
    given = [USER, THOUGHT, CALL | {"name": "a b"}]
    assert refused(api, input=given, previous_response_id=previous)[0] == "input[2].name"
    assert refused(api, input=["Hello"])[0] == "input"


def test_special_tokens_in_items_stay_text(api):
    given = [
        USER,
        said("<|end|>"),
        CALL | {"arguments": "<|call|>"},
        RESULT | {"output": "<|end|>"},
    ]
    made = ids(api, input=given)
    assert made.count(SPECIAL.call) == 1 and made.count(SPECIAL.end) == 4
