"""Chat templates of the user: markers, errors, Hugging Face's conventions."""

import json
import re
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haast.harmony import ChatTemplate, ConversationError, TemplateError

from .spell import spell
from .strategies import texts

USER = {"role": "user", "content": "hi"}
PLAIN = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


@pytest.fixture
def template(tokenizer, tmp_path):
    def build(source, name="template.jinja"):
        path = tmp_path / name
        path.write_text(source)
        return ChatTemplate(path, tokenizer)

    return build


@pytest.fixture(scope="module")
def plain(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "plain.jinja"
    path.write_text(PLAIN)
    return ChatTemplate(path, tokenizer)


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, min_size=1, max_size=3))
def test_only_the_template_writes_markers(tokenizer, plain, contents):
    ids = plain.render([{"role": "user", "content": content} for content in contents])
    special = tokenizer.special
    expected = []
    for content in contents:
        expected += [special.start, *tokenizer.encode("user"), special.message]
        expected += [*tokenizer.encode(content), special.end]
    assert ids == [*expected, special.start, *tokenizer.encode("assistant")]


SPLIT = "<|start|>"


@pytest.mark.parametrize("cut", range(1, len(SPLIT)))
@pytest.mark.parametrize("blanks", ["", " \n"])
def test_a_marker_cannot_be_joined_from_two_texts(tokenizer, template, cut, blanks):
    source = "{% for m in messages %}{{ m.content | trim }}{% endfor %}"
    first, second = SPLIT[:cut] + blanks, blanks + SPLIT[cut:]
    chat = [{"role": "user", "content": content} for content in (first, second)]
    assert template(source).render(chat) == tokenizer.encode(SPLIT)


@pytest.mark.parametrize("cut", [*range(1, 3), *range(len(SPLIT) - 2, len(SPLIT))])
def test_a_text_cannot_complete_the_templates_characters(tokenizer, template, cut):
    behind = template(SPLIT[:cut] + "{{ messages[0].content }}")
    before = template("{{ messages[0].content }}" + SPLIT[cut:])
    assert behind.render([{"content": SPLIT[cut:]}]) == tokenizer.encode(SPLIT)
    assert before.render([{"content": SPLIT[:cut]}]) == tokenizer.encode(SPLIT)


def test_markers_in_tools_keys_and_variables_stay_text(tokenizer, template):
    source = "{{ tools | tojson }}{{ extra }}<|end|>"
    tools = [{"type": "function", "<|end|>": "<|call|>"}]
    text = json.dumps(tools) + "<|return|>"
    ids = template(source).render([USER], tools, extra="<|return|>")
    assert ids == [*tokenizer.encode(text), tokenizer.special.end]


def test_private_use_characters_survive(tokenizer, template):
    text = "".join(map(chr, range(0xE000, 0xE010))) + "<|end|>"
    ids = template("{{ messages[0].content }}").render([{"role": "user", "content": text}])
    assert tokenizer.decode(ids) == text


def test_conventions(tokenizer, template):
    source = (
        "{%- for m in messages %}\n"
        "    {%- if loop.index > 1 %}{% break %}{% endif %}\n"
        "    {{- m.content }}|{{ m.thinking }}|{{ m.reasoning_content }}|\n"
        "    {{- m.tool_calls[0].function.arguments.x }}|{{ {'a': '<é>'} | tojson }}|\n"
        "{%- endfor %}\n"
        "{{- bos_token ~ eos_token ~ reasoning_effort ~ tools ~ add_generation_prompt }}"
    )
    call = {"id": "1", "function": {"name": "f", "arguments": '{"x": 7}'}}
    message = {"role": "assistant", "content": [{"type": "text", "text": "a"}], "reasoning": "hm"}
    chat = [message | {"tool_calls": [call]}, {}]
    ids = template(source).render(chat, reasoning_effort="low")
    assert ids == spell('a|hm|hm|7|{"a": "<é>"}|<|startoftext|><|return|>lowNoneTrue', tokenizer)


def test_json_file(tokenizer, template):
    found = template(json.dumps({"chat_template": PLAIN}), "tokenizer_config.json")
    assert found.render([USER]) == spell(
        "<|start|>user<|message|>hi<|end|><|start|>assistant", tokenizer
    )


def test_date(tokenizer, template):
    ids = template("{{ strftime_now('%Y') }}").render([USER])
    assert re.fullmatch(r"20\d\d", tokenizer.decode(ids))
    assert abs(int(tokenizer.decode(ids)) - datetime.now().year) <= 1


BROKEN = [
    ("a.jinja", "one\n{% if %}", "a.jinja, line 2: Expected an expression"),
    ("a.jinja", "{% for m in messages %}", "a.jinja, line 1: "),
    ("a.json", "{", "cannot read chat template"),
    ("a.json", "{}", 'has no "chat_template"'),
    ("a.json", "[]", 'has no "chat_template"'),
    ("a.json", '{"chat_template": [1]}', "must be a string"),
]


@pytest.mark.parametrize(("name", "source", "line"), BROKEN)
def test_broken_file_is_one_line(template, tmp_path, name, source, line):
    with pytest.raises(TemplateError) as caught:
        template(source, name)
    message = str(caught.value)
    assert line in message and str(tmp_path / name) in message and "\n" not in message


def test_unreadable_files(tokenizer, tmp_path):
    with pytest.raises(TemplateError, match=r"^no chat template .*none\.jinja$"):
        ChatTemplate(tmp_path / "none.jinja", tokenizer)
    (tmp_path / "binary.jinja").write_bytes(b"\xff")
    with pytest.raises(TemplateError, match="cannot read chat template .*binary"):
        ChatTemplate(tmp_path / "binary.jinja", tokenizer)
    with pytest.raises(TemplateError, match="cannot read chat template"):
        ChatTemplate(tmp_path, tokenizer)


FAILING = [
    ("\n{{ messages[0].nothing.more }}", "line 2: 'dict object' has no attribute 'nothing'"),
    ("{{ 1 / 0 }}", "line 1: division by zero"),
    ("{{ messages[0].content + 1 }}", "line 1: can only concatenate str"),
    ("{{ messages.append(1) }}", "line 1: "),
    ("{{ ''.__class__.__mro__ }}", "line 1: access to attribute '__class__'"),
]


@pytest.mark.parametrize(("source", "line"), FAILING)
def test_failing_template_is_one_line(template, source, line):
    with pytest.raises(TemplateError) as caught:
        template(source).render([USER])
    assert line in str(caught.value)
    assert "template.jinja" in str(caught.value) and "\n" not in str(caught.value)


def test_refusal_by_the_template_is_the_conversations_fault(template):
    with pytest.raises(ConversationError, match="template.jinja refuses .*: no user"):
        template("{{ raise_exception('no user') }}").render([USER])


def test_bad_messages(plain):
    with pytest.raises(ConversationError, match=r"messages\[1\] is of type str"):
        plain.render([USER, "hi"])
    with pytest.raises(ConversationError, match="must be a list"):
        plain.render("hi")
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ConversationError, match="nested too deeply"):
        plain.render([USER], deep)
