"""What a request of the Responses API holds its answer to: a format, a call, a budget."""

import json

import pytest

from .test_response_fields import FUNCTION, TOOL, asked, prompt, refused, whole

ANY = {"type": "object"}


def grammar(api, **body):
    """First line of the frame, and the schemas of the grammar by name."""
    frame, *pieces = json.loads(asked(api, **body).params.grammar)["grammars"]
    schemas = {piece["name"]: piece["json_schema"] for piece in pieces}
    return frame["lark_grammar"].split("\n")[0], schemas


def test_calls_are_forced(api):
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [FUNCTION]}
    for choice in ("required", FUNCTION, allowed):
        start, schemas = grammar(api, tools=[TOOL], tool_choice=choice)
        assert "final" not in start and schemas["args0"]["additionalProperties"] is False
        assert whole(api, tools=[TOOL], tool_choice=choice)["tool_choice"] == choice
    other = FUNCTION | {"name": "other"}
    _, schemas = grammar(api, tools=[TOOL, other], tool_choice=allowed | {"mode": "auto"})
    assert len(schemas) == 1
    assert asked(api, tools=[TOOL]).params.grammar is None


@pytest.mark.parametrize("text", ["json_schema", "json_object"])
def test_formats(api, text):
    form = {"type": text, "name": "menu", "description": "Food.", "schema": ANY, "strict": True}
    form = form if text == "json_schema" else {"type": text}
    start, schemas = grammar(api, text={"format": form}, thinking_token_budget=7)
    assert schemas["answer"].items() > ANY.items() and "analysis? (final)" in start
    title = "menu\n\n// Food." if text == "json_schema" else text + "\n"
    assert f"# Response Formats\n\n## {title}" in prompt(api, text={"format": form})
    assert whole(api, text={"format": form})["text"]["format"] == form


NOT = {"type": "json_schema", "name": "a", "schema": {"not": {}}, "strict": True}
NOBODY = {"type": "allowed_tools", "mode": "auto", "tools": [FUNCTION | {"name": "g"}]}
REFUSED = [
    ({"text": {"format": NOT}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ({"text": {"format": {}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_object"}}, "guided_regex": "a"}, "guided_regex"),
    ({"guided_regex": "("}, "guided_regex"),
    ({"thinking_token_budget": -1}, "thinking_token_budget"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": FUNCTION}, "tool_choice"),
    ({"tool_choice": FUNCTION | {"name": "f"}, "tools": [TOOL]}, "tool_choice"),
    ({"tool_choice": {"type": "function"}, "tools": [TOOL]}, "tool_choice.name"),
    ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice"),
    ({"tool_choice": NOBODY, "tools": [TOOL]}, "tool_choice"),
    ({"tool_choice": NOBODY | {"mode": "none"}}, "tool_choice.mode"),
    ({"tools": [FUNCTION | {"parameters": {"not": {}}, "strict": True}]}, "tools[0].parameters"),
    ({"tools": [FUNCTION | {"strict": "true"}]}, "tools[0].strict"),
    ({"text": {"format": NOT | {"schema": {}, "strict": 0}}}, "text.format.strict"),
]


@pytest.mark.parametrize("body, param", REFUSED, ids=lambda value: str(value)[:50])
def test_refusals_name_the_field(api, body, param):
    named, text = refused(api, **body)
    assert named == param and param.split(".")[0].split("[")[0] in text
