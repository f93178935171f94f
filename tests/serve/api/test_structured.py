"""Forced calls and formats over haast-tiny, drawn at temperature 1: none may be wrong."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import openai
import pydantic
import pytest

from ...lookup import TOOL
from .test_openai_client import EAGLE

COUNT = {
    "type": "function",
    "function": {
        "name": "count_words",
        "parameters": {
            "type": "object",
            "properties": {
                "kind": {"enum": ["noun", "verb"]},
                "limit": {"type": "integer", "minimum": 1, "maximum": 99},
            },
            "required": ["kind", "limit"],
            "additionalProperties": False,
        },
    },
}
DRAWN = {"model": "haast-tiny", "temperature": 1.0, "max_tokens": 120, "reasoning_effort": "low"}
SHORT = {"extra_body": {"thinking_token_budget": 4}}


def ask(client, **body):
    """All choices, of which none was cut."""
    made = client.chat.completions.create(**({"messages": EAGLE} | DRAWN | SHORT | body))
    assert {choice.finish_reason for choice in made.choices} <= {"stop", "tool_calls"}, made
    return made.choices


def assert_counts(arguments):
    """What the schema of count_words says."""
    given = json.loads(arguments)
    assert given["kind"] in ("noun", "verb") and 1 <= given["limit"] <= 99
    assert type(given["limit"]) is int and {*given} == {"kind", "limit"}


def test_a_named_tool_is_called_as_it_wants(client):
    choice = {"type": "function", "function": {"name": "count_words"}}
    choices = ask(client, tools=[TOOL, COUNT], tool_choice=choice, seed=0, n=10)
    for made in choices:
        (call,) = made.message.tool_calls
        assert made.finish_reason == "tool_calls" and made.message.content is None
        assert call.function.name == "count_words"
        assert_counts(call.function.arguments)
    assert len({made.message.tool_calls[0].function.arguments for made in choices}) > 3


def test_some_tool_is_called(client):
    short = json.loads(json.dumps(TOOL))
    short["function"]["parameters"]["properties"]["word"]["maxLength"] = 12
    names = set()
    for made in ask(client, tools=[short, COUNT], tool_choice="required", n=8, seed=3):
        (call,) = made.message.tool_calls
        names.add(call.function.name)
        if call.function.name == "lookup":
            assert len(json.loads(call.function.arguments)["word"]) <= 12
        else:
            assert_counts(call.function.arguments)
    assert names and names <= {"lookup", "count_words"}


def test_only_allowed_tools_are_called(client):
    tools = [{"type": "function", "function": {"name": "count_words"}}]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}
    choices = ask(client, tools=[TOOL, COUNT], tool_choice=allowed, n=4, seed=1)
    assert {c.message.tool_calls[0].function.name for c in choices} == {"count_words"}
    wombat = [{"role": "user", "content": "What is a wombat?"}]
    free = {"tools": [TOOL, COUNT], "messages": wombat, "temperature": 0}
    assert ask(client, **free)[0].message.tool_calls[0].function.name == "lookup"
    allowed["allowed_tools"]["mode"] = "auto"
    (made,) = ask(client, **free, tool_choice=allowed)
    calls = made.message.tool_calls or []
    assert {call.function.name for call in calls} <= {"count_words"}


class Animal(pydantic.BaseModel):
    kind: Literal["bird", "fish", "mammal"]
    legs: int = pydantic.Field(ge=0, le=8)
    sound: str = pydantic.Field(max_length=10)


def test_pydantic_models_are_parsed(client):
    made = client.chat.completions.parse(
        messages=EAGLE, response_format=Animal, n=6, seed=5, **DRAWN, **SHORT
    )
    for choice in made.choices:
        assert choice.finish_reason == "stop" and isinstance(choice.message.parsed, Animal)
        assert choice.message.parsed == Animal.model_validate_json(choice.message.content)
    assert len({choice.message.content for choice in made.choices}) > 2


FORMATS = {
    "regex": ({"structured_outputs": {"regex": r"\d{3}-[a-f]{2}"}}, r"\d{3}-[a-f]{2}"),
    "old regex": ({"guided_regex": "(cat|dog)s?"}, "(cat|dog)s?"),
    "choice": ({"structured_outputs": {"choice": ["yes", 'no "way"']}}, 'yes|no "way"'),
    "grammar": ({"guided_grammar": 'root ::= "a" [0-9] b\nb ::= "x" | "y"'}, "a[0-9][xy]"),
    "json": ({"guided_json": json.dumps({"enum": [1, "two", None]})}, '1|"two"|null'),
}


@pytest.mark.parametrize("extra, pattern", FORMATS.values(), ids=FORMATS)
def test_answers_match(client, extra, pattern):
    budget = {"thinking_token_budget": 4}
    choices = ask(client, n=4, seed=2, extra_body=extra | budget)
    for choice in choices:
        assert re.fullmatch(pattern, choice.message.content), choice.message.content
        assert choice.message.reasoning
    made = client.completions.create(
        model="haast-tiny", prompt="A", max_tokens=30, n=4, seed=1, extra_body=extra
    )
    for choice in made.choices:
        assert re.fullmatch(pattern, choice.text) and choice.finish_reason == "stop"


def test_responses_are_parsed(client):
    wanted = {"model": "haast-tiny", "input": EAGLE, "temperature": 1.0, "max_output_tokens": 120}
    wanted |= SHORT | {"reasoning": {"effort": "low"}}
    parsed = client.responses.parse(text_format=Animal, **wanted)
    assert parsed.status == "completed" and isinstance(parsed.output_parsed, Animal)
    flat = COUNT["function"] | {"type": "function"}
    forced = client.responses.create(tools=[flat], tool_choice="required", **wanted)
    (call,) = (item for item in forced.output if item.type == "function_call")
    assert call.name == "count_words" and not forced.output_text
    assert_counts(call.arguments)


def test_many_texts_of_a_schema(client):
    form = {"type": "json_schema", "json_schema": {"schema": COUNT_SCHEMA, "strict": True}}
    made = client.completions.create(
        model="haast-tiny",
        prompt="A",
        max_tokens=60,
        n=24,
        seed=8,
        extra_body={"response_format": form},
    )
    assert {choice.finish_reason for choice in made.choices} == {"stop"}
    for choice in made.choices:
        assert_counts(choice.text)
    assert len({json.loads(choice.text)["limit"] for choice in made.choices}) > 5


def test_json_objects(client):
    made = client.completions.create(
        model="haast-tiny",
        prompt="A",
        max_tokens=60,
        temperature=0,
        extra_body={"response_format": {"type": "json_object"}},
    )
    assert made.choices[0].text.lstrip().startswith("{")


class Long(pydantic.BaseModel):
    """Cannot end within the tokens that it is given."""

    word: str = pydantic.Field(min_length=1000)


def test_what_is_cut_says_so(client):
    body = {"messages": EAGLE} | DRAWN | SHORT | {"max_tokens": 30, "seed": 0}
    schema = {"schema": Long.model_json_schema()}
    form = {"type": "json_schema", "json_schema": schema}
    (choice,) = client.chat.completions.create(response_format=form, **body).choices
    assert choice.finish_reason == "length" and choice.message.content.startswith("{")
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(response_format=Long, **body)


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_thoughts_end_in_time(client, budget):
    extra = {"thinking_token_budget": budget}
    made = client.chat.completions.create(
        messages=EAGLE, extra_body=extra, **(DRAWN | {"temperature": 0, "reasoning_effort": "high"})
    )
    (choice,) = made.choices
    assert made.usage.completion_tokens_details.reasoning_tokens == budget
    assert bool(getattr(choice.message, "reasoning", None)) == (budget > 0)
    assert choice.finish_reason == "stop" and choice.message.content


def test_streams_are_the_answers_in_pieces(client):
    wanted = DRAWN | SHORT | {"seed": 9, "messages": EAGLE}
    choice = {"type": "function", "function": {"name": "count_words"}}
    for body in (
        {"tools": [TOOL, COUNT], "tool_choice": choice},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": COUNT_SCHEMA}}},
    ):
        (whole,) = client.chat.completions.create(**(wanted | body)).choices
        with client.chat.completions.stream(**(wanted | body)) as stream:
            (streamed,) = stream.get_final_completion().choices
        assert streamed.finish_reason == whole.finish_reason
        assert (streamed.message.content or "") == (whole.message.content or "")
        assert calls_of(streamed) == calls_of(whole)
        assert_counts(whole.message.content or calls_of(whole)[0][1])


COUNT_SCHEMA = COUNT["function"]["parameters"]


def calls_of(choice):
    calls = choice.message.tool_calls or []
    return [(call.function.name, call.function.arguments) for call in calls]


def test_free_requests_do_not_notice_those_beside_them(client):
    """Greedy, since rounding on a CPU may depend on the batch."""
    greedy = DRAWN | {"messages": EAGLE, "temperature": 0, "max_tokens": 50}
    free, bound = greedy | {"logprobs": True}, greedy | SHORT
    bound |= {"response_format": {"type": "json_schema", "json_schema": {"schema": COUNT_SCHEMA}}}
    alone = [said(client, body) for body in (free, bound)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda body: said(client, body), [free, bound] * 2))
    assert together == alone * 2


def said(client, body):
    choice = client.chat.completions.create(**body).choices[0]
    scored = choice.logprobs.content if choice.logprobs else []
    return choice.message.content, choice.message.reasoning, [token.token for token in scored]
