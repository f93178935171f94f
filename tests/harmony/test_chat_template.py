"""Our own chat template gives the tokens of the renderer, here and in transformers."""

import json
import lzma
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from haast.harmony import (
    TEMPLATE_PATH,
    ChatTemplate,
    ResponseFormat,
    SystemConfig,
    from_chat,
    render,
    render_training,
)

from .conftest import TOKENIZER_PATH
from .strategies import names, texts

EFFORTS = st.sampled_from(["low", "medium", "high"])
notes = {
    "description": texts,
    "title": texts,
    "examples": st.lists(texts, max_size=2),
    "default": texts | st.integers(-99, 99) | st.booleans() | st.none(),
    "nullable": st.booleans(),
}
leaves = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "number", "boolean", "null"])},
        optional=notes | {"enum": st.lists(texts, max_size=3)},
    ),
    st.fixed_dictionaries({"type": st.just(["integer", "null"])}, optional=notes),
    st.fixed_dictionaries({}, optional=notes),
)


def containers(inner):
    fields = st.dictionaries(st.sampled_from(["a", "items", "default"]), inner, max_size=3)
    required = st.lists(st.sampled_from(["a", "items"]), max_size=2)
    optional = notes | {"properties": fields, "required": required}
    return st.one_of(
        st.fixed_dictionaries({"type": st.just("object")}, optional=optional),
        st.fixed_dictionaries({"type": st.just("array")}, optional=notes | {"items": inner}),
    )


objects = containers(st.recursive(leaves, containers, max_leaves=4)).filter(
    lambda schema: schema["type"] == "object"
)


def tool(name, description, parameters):
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


tools = st.lists(
    st.builds(tool, names, st.text("ab\n", max_size=5), st.none() | objects), max_size=2
)


def call_and_result(call_id, name, text, arguments, result):
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return [
        {
            "role": "assistant",
            "reasoning": "hm",
            "content": text,
            "tool_calls": [{"id": call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call_id, "content": result},
    ]


def says(role):
    return st.builds(lambda content: [{"role": role, "content": content}], texts)


answers = st.builds(
    lambda content, reasoning: [{"role": "assistant", "content": content, "reasoning": reasoning}],
    texts,
    texts,
)
rounds = st.builds(
    call_and_result,
    st.sampled_from(["call_1", "call_2"]),
    names,
    st.none() | texts,
    st.dictionaries(names, texts | st.integers(), max_size=2),
    texts,
)
chats = st.lists(
    says("system") | says("developer") | says("user") | answers | rounds, min_size=1, max_size=6
).map(lambda parts: [message for part in parts for message in part])


@pytest.fixture(scope="module")
def template(tokenizer):
    return ChatTemplate(TEMPLATE_PATH, tokenizer)


@settings(max_examples=200, deadline=None)
@given(chats, tools, EFFORTS)
def test_prompt_equals_the_renderer(tokenizer, template, chat, tools, effort):
    ours = render(from_chat(chat, tools), tokenizer, SystemConfig(reasoning_effort=effort))
    assert template.render(chat, tools, reasoning_effort=effort) == ours


@settings(max_examples=50, deadline=None)
@given(chats)
def test_training_text_equals_the_renderer(tokenizer, template, chat):
    ours = render_training(from_chat(chat), tokenizer)
    assert template.render(chat, add_generation_prompt=False) == ours


def test_nullable_is_said_once(tokenizer, template):
    kinds = {"a": {"type": ["integer", "null"]}, "b": {"type": "number"}}
    fields = {name: kind | {"nullable": True} for name, kind in kinds.items()}
    offered = [tool("f", "", {"type": "object", "properties": fields})]
    chat = [{"role": "user", "content": "hi"}]
    ids = template.render(chat, offered)
    assert ids == render(from_chat(chat, offered), tokenizer)
    assert "a?: number | null,\nb?: number | null,\n" in tokenizer.decode(ids)


@pytest.mark.parametrize("instructions", [[], [{"role": "developer", "content": "Be."}]])
@pytest.mark.parametrize("tools", [None, [tool("f", "", {})]])
def test_response_format(tokenizer, template, instructions, tools):
    form = ResponseFormat("menu", '{"type":"object"}', "What there is.\n<|end|>")
    chat = [*instructions, {"role": "user", "content": "hi"}]
    ours = render(replace(from_chat(chat, tools), response_format=form), tokenizer)
    assert template.render(chat, tools, response_format=form.text) == ours
    expected = '# Response Formats\n\n## menu\n\n// What there is.\n// <|end|>\n{"type":"object"}'
    text = tokenizer.decode(ours)
    assert f"{expected}<|end|><|start|>user" in text
    assert ours.count(tokenizer.special.end) == 3 and text.count("\n\n# Response") == bool(
        instructions or tools
    )


def test_date_and_identity(tokenizer, template):
    system = SystemConfig(model_identity="I am.", conversation_date="2025-01-02")
    chat = [{"role": "user", "content": "hi"}]
    variables = {"model_identity": "I am.", "conversation_date": "2025-01-02"}
    assert template.render(chat, **variables) == render(from_chat(chat), tokenizer, system)


def test_preambles_by_phase(tokenizer, template):
    """A phase that nobody knows changes nothing; an empty preamble is none."""
    user = {"role": "user", "content": "hi"}
    channels = {"commentary": "commentary", "final_answer": "final", "loud": "final", None: "final"}
    for phase, channel in channels.items():
        said = {"role": "assistant", "content": "So.", "phase": phase}
        chat = [user, said, said | {"content": ""}, user]
        ids = template.render(chat)
        assert ids == render(from_chat(chat), tokenizer)
        assert f"<|channel|>{channel}<|message|>So.<|end|>" in tokenizer.decode(ids)
        assert tokenizer.decode(ids).count("<|start|>assistant<|") == 1 + (channel == "final")


def test_transformers_reads_it_the_same(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(lzma.decompress(TOKENIZER_PATH.read_bytes()))
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(path))
    theirs.chat_template = TEMPLATE_PATH.read_text()
    schema = {"type": "object", "properties": {"x": {"type": "string", "default": "é"}}}
    offered = [tool("f", "Do it.", schema)]
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        *call_and_result("call_1", "f", "Let me see.", {"x": "ü"}, "42"),
        {"role": "assistant", "content": "It is 42.", "reasoning": "easy"},
    ]
    for cut, prompting in ((4, True), (5, False)):
        ids = theirs.apply_chat_template(
            chat[:cut], tools=offered, add_generation_prompt=prompting, return_dict=False
        )
        expected = (render if prompting else render_training)(
            from_chat(chat[:cut], offered), tokenizer
        )
        assert ids == expected
