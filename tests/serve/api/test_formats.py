"""Fields that say what the answer has to be: what the engine and the model are told, or why not."""

import json

import pytest

from haast.harmony import TEMPLATE_PATH, ChatTemplate
from haast.prompt import PromptBuilder

from .conftest import Api
from .spoken import TOKENIZER

SCHEMA = {"type": "object", "properties": {"café": {"type": "string"}}, "required": ["café"]}
NAMED = {"name": "menu", "description": "What there is.\nToday.", "schema": SCHEMA, "strict": True}
TOOL = {"type": "function", "function": {"name": "lookup", "parameters": SCHEMA}}
BARE = {"type": "function", "function": {"name": "bare"}}
NOT = {"type": "object", "not": {"required": ["a"]}}
TOLD = '# Response Formats\n\n## menu\n\n// What there is.\n// Today.\n{"type":"object",'


def format_of(schema, **more):
    return {"type": "json_schema", "json_schema": {"name": "menu", "schema": schema} | more}


def grammars(api, path="chat", **body):
    """The pieces of the grammar that the engine is asked for, by name; the frame has none."""
    found = json.loads(api.asked(path, **body).params.grammar)["grammars"]
    return {piece.get("name"): piece for piece in found}


def prompt(api, **body):
    return TOKENIZER.decode(api.asked(**body).prompt_ids)


def test_most_chats_have_no_grammar(api):
    for body in ({}, {"tools": [TOOL]}, {"response_format": {"type": "text"}}, {"tools": []}):
        assert api.asked(**body).params.grammar is None
    for choice in ("auto", "none", None):
        assert api.asked(tools=[TOOL], tool_choice=choice).params.grammar is None
    assert api.asked("completions").params.grammar is None


def test_a_schema_is_enforced_and_told(api):
    body = {"response_format": {"type": "json_schema", "json_schema": NAMED}}
    pieces = grammars(api, **body)
    assert pieces["answer"]["json_schema"].items() > SCHEMA.items()
    assert pieces["answer"]["json_schema"]["x-guidance"]["lenient"] is False
    text = prompt(api, **body)
    assert f"<|start|>developer<|message|>{TOLD}" in text and '"café":{' in text
    told = prompt(api, **body, messages=[{"role": "system", "content": "Be."}], tools=[TOOL])
    assert "# Instructions\n\nBe.\n\n# Tools\n\n" in told
    assert "} // namespace functions\n\n" + TOLD in told


def test_our_template_tells_the_same(api):
    body = {"response_format": {"type": "json_schema", "json_schema": NAMED}, "tools": [TOOL]}
    rendered = [prompt(api, **body, messages=[{"role": "system", "content": "Be."}])]
    rendered.append(prompt(api, response_format=body["response_format"]))
    template = ChatTemplate(TEMPLATE_PATH, TOKENIZER)
    object.__setattr__(api.service, "prompts", PromptBuilder(TOKENIZER, template))
    assert prompt(api, **body, messages=[{"role": "system", "content": "Be."}]) == rendered[0]
    assert prompt(api, response_format=body["response_format"]) == rendered[1]


TOLD_OF = [
    ({"response_format": {"type": "json_object"}}, '## json_object\n\n{"type":"object"}'),
    ({"structured_outputs": {"json_object": True}}, '## json_object\n\n{"type":"object"}'),
    ({"guided_json": {"enum": [1]}}, '## response\n\n{"enum":[1]}'),
    ({"structured_outputs": {"json": '{"enum": [1]}'}}, '## response\n\n{"enum":[1]}'),
    ({"structured_outputs": {"choice": ["é", "b"]}}, 'nothing else.\n["é","b"]'),
    ({"guided_choice": ["a"]}, '["a"]'),
    ({"guided_regex": "a/b+"}, "regular expression.\na/b+"),
    ({"structured_outputs": {"regex": "a", "json": None, "json_object": False}}, "\na<|end|>"),
    ({"structured_outputs": {"grammar": 'start: "a"'}}, "## grammar\n\n// A text of this grammar."),
]


@pytest.mark.parametrize("body, told", TOLD_OF, ids=lambda value: str(value)[:60])
def test_formats(api, body, told):
    assert told in prompt(api, **body)
    piece = grammars(api, **body)["answer"]
    raw = grammars(api, "completions", **body)
    assert raw == {None: {key: value for key, value in piece.items() if key != "name"}}


def calls(api, **body):
    """Which functions the frame allows, and whether an answer."""
    found = json.loads(api.asked(**body).params.grammar)["grammars"]
    frame = found[0]["lark_grammar"].split("\n")[0]
    named = [piece for piece in found[1:] if piece["name"].startswith("args")]
    return len(named), "final" in frame, [piece["json_schema"] for piece in named]


def test_which_calls_are_open(api):
    tools = {"tools": [TOOL, BARE]}
    named = {"type": "function", "function": {"name": "bare"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}
    assert calls(api, **tools, tool_choice="required")[:2] == (2, False)
    count, may_answer, (schema,) = calls(api, **tools, tool_choice=named)
    assert (count, may_answer, schema["properties"]) == (1, False, {})
    assert schema["additionalProperties"] is False
    assert calls(api, **tools, tool_choice=allowed)[:2] == (1, True)
    allowed["allowed_tools"]["mode"] = "required"
    assert calls(api, **tools, tool_choice=allowed)[:2] == (1, False)
    assert calls(api, **tools, tool_choice="none", thinking_token_budget=3)[:2] == (0, True)
    assert "lookup" not in prompt(api, **tools, tool_choice="none", guided_choice=["a"])
    assert "lookup" in prompt(api, **tools, tool_choice=named)


def test_arguments_follow_the_schema_if_forced_or_strict(api):
    strict = {"type": "function", "function": TOOL["function"] | {"strict": True}}
    _, may_answer, schemas = calls(api, tools=[strict, TOOL | {}])
    assert may_answer and schemas[0]["properties"] == SCHEMA["properties"]
    assert schemas[0]["x-guidance"]["lenient"] is False
    assert schemas[1].keys() == {"type", "x-guidance"}
    _, _, schemas = calls(api, tools=[TOOL], tool_choice="required")
    assert schemas[0]["properties"] == SCHEMA["properties"]
    assert schemas[0]["x-guidance"]["lenient"] is True


LOOSE = {"type": "function", "function": {"name": "f", "parameters": NOT}}
STRICT = {"type": "function", "function": LOOSE["function"] | {"strict": True}}
DEEP = json.loads('{"items":' * 120 + "{}" + "}" * 120)
REFUSED = [
    ({"response_format": {}}, "response_format.type", "None"),
    ({"response_format": {"type": "structural_tag"}}, "response_format.type", "json_schema"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "an object"),
    ({"response_format": format_of(None)}, "response_format.json_schema.schema", "an object"),
    ({"response_format": format_of({}, name=3)}, "response_format.json_schema.name", "string"),
    ({"response_format": format_of(DEEP)}, "response_format.json_schema.schema", "nested deeper"),
    (
        {"response_format": format_of(NOT, strict=True)},
        "response_format.json_schema.schema",
        'Unimplemented keys: ["not"]',
    ),
    (
        {"response_format": format_of({"type": "sting"})},
        "response_format.json_schema.schema",
        "sting",
    ),
    (
        {"response_format": format_of({}, strict="yes")},
        "response_format.json_schema.strict",
        "true or false",
    ),
    ({"guided_json": "{"}, "guided_json", "no JSON"),
    ({"guided_json": "[1]"}, "guided_json", "an object"),
    ({"guided_json": NOT}, "guided_json", "not"),
    ({"guided_regex": "(a"}, "guided_regex", "unclosed group"),
    ({"guided_regex": "(?=a)b"}, "guided_regex", "look-around"),
    ({"guided_regex": ""}, "guided_regex", "not empty"),
    ({"guided_choice": []}, "guided_choice", "not empty"),
    ({"guided_choice": [1]}, "guided_choice[0]", "string"),
    ({"guided_grammar": "root ::= b"}, "guided_grammar", "b"),
    ({"guided_grammar": "start: b"}, "guided_grammar", "unknown name"),
    ({"guided_grammar": "what?"}, "guided_grammar", "Expected"),
    ({"structured_outputs": {"regex": 0}}, "structured_outputs.regex", "a string"),
    ({"structured_outputs": {"json_object": 1}}, "structured_outputs.json_object", "true or false"),
    (
        {"structured_outputs": {"structural_tag": "x"}},
        "structured_outputs.structural_tag",
        "not supp",
    ),
    ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.choice", "regex"),
    ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice", "guided_regex"),
    ({"allowed_token_ids": []}, "allowed_token_ids", "one or more"),
]
REFUSED_IN_CHAT = [
    ({"tool_choice": "sometimes", "tools": [TOOL]}, "tool_choice", "'required'"),
    ({"tool_choice": "required"}, "tool_choice", "no tools"),
    ({"tool_choice": {"type": "function"}, "tools": [TOOL]}, "tool_choice.function.name", "string"),
    (
        {"tool_choice": {"type": "function", "function": {"name": "f"}}, "tools": [TOOL]},
        "tool_choice",
        "the tools are: 'lookup'",
    ),
    ({"tool_choice": {"type": "custom"}, "tools": [TOOL]}, "tool_choice.type", "custom"),
    ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools", "list of tools"),
    (
        {
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "none", "tools": [TOOL]},
            }
        },
        "tool_choice.allowed_tools.mode",
        "'required'",
    ),
    ({"tools": [STRICT]}, "tools[0].function.parameters", "not"),
    (
        {"tools": [BARE, {"type": "function", "function": {"name": "f", "strict": 1}}]},
        "tools[1].function.strict",
        "true or false",
    ),
    ({"thinking_token_budget": -1}, "thinking_token_budget", "at least 0"),
    ({"thinking_token_budget": 1.5}, "thinking_token_budget", "integer"),
]


@pytest.mark.parametrize("path", ["chat", "completions"])
@pytest.mark.parametrize("body, param, why", REFUSED, ids=lambda value: str(value)[:50])
def test_refusals_name_the_field(api, body, param, why, path):
    named, message = api.refused(path, **body)
    assert named == param and why in message and len(message) < 300


@pytest.mark.parametrize("body, param, why", REFUSED_IN_CHAT, ids=lambda value: str(value)[:50])
def test_refusals_of_chats_name_the_field(api, body, param, why):
    named, message = api.refused(**body)
    assert named == param and why in message


@pytest.mark.parametrize("tool", [{}, {"type": "function"}, {"type": "function", "function": {}}])
def test_tools_that_may_not_be_called_are_not_looked_at(api, tool):
    body = {"tools": [tool], "tool_choice": "none", "guided_choice": ["a"]}
    assert [*grammars(api, **body)] == [None, "answer"]


def test_what_cannot_be_enforced_is_left_out_of_loose_schemas(api):
    assert api.chat(response_format=format_of(NOT)).status_code == 200
    assert api.chat(tools=[LOOSE], tool_choice="required").status_code == 200
    assert api.chat(tools=[LOOSE]).status_code == 200


def test_a_template_that_begins_the_answer_leaves_no_room(tmp_path):
    path = tmp_path / "x.jinja"
    path.write_text("<|start|>assistant<|channel|>final<|message|>")
    api = Api()
    object.__setattr__(
        api.service, "prompts", PromptBuilder(TOKENIZER, ChatTemplate(path, TOKENIZER))
    )
    assert api.chat().status_code == 200
    assert "template" in api.refused(guided_regex="a")[1]
