"""Strings, token ids and chats become prompts."""

import pytest

from haast.errors import HaastError
from haast.harmony import (
    TEMPLATE_PATH,
    ChatTemplate,
    Conversation,
    Message,
    SystemConfig,
    Tokenizer,
    render,
)
from haast.model.locate import demo_folder
from haast.prompt import ChatOptions, PromptBuilder, opened_message

TOKENIZER = Tokenizer(demo_folder() / "tokenizer.json")
SPECIAL = TOKENIZER.special
BUILDER = PromptBuilder(TOKENIZER)
TOOL = {"type": "function", "function": {"name": "lookup", "description": "Look up."}}


def ids(prompt, **options) -> list[int]:
    return BUILDER.ids(prompt, ChatOptions(**options))


def text(prompt, **options) -> str:
    return TOKENIZER.decode(ids(prompt, **options))


def test_a_string_is_one_user_message():
    conversation = Conversation((Message("user", "Hello"),))
    expected = render(conversation, TOKENIZER, SystemConfig())
    assert ids("Hello") == ids([{"role": "user", "content": "Hello"}]) == expected
    assert text("Hello").endswith("<|start|>user<|message|>Hello<|end|><|start|>assistant")


@pytest.mark.parametrize("given", [[5, 6, SPECIAL.start], (5, 6), range(3)])
def test_token_ids_are_taken_as_they_are(given):
    assert ids(given) == list(given)


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_reasoning_effort_is_told(effort):
    assert text("Hello", reasoning_effort=effort).count(f"Reasoning: {effort}\n") == 1


def test_an_effort_that_does_not_exist_is_refused():
    with pytest.raises(HaastError, match="low, medium, high; got 'extreme'"):
        ChatOptions(reasoning_effort="extreme")


def test_the_date_is_told_only_when_given():
    assert "date" not in text("Hello")
    assert "\nCurrent date: 2026-01-31\n" in text("Hello", conversation_date="2026-01-31")


def test_tools_are_told_only_when_given():
    assert "lookup" not in text("Hello") and "# Tools" not in text("Hello", tools=[])
    assert "type lookup = () => any;" in text("Hello", tools=[TOOL])


def test_a_template_renders_instead():
    with_template = PromptBuilder(TOKENIZER, ChatTemplate(TEMPLATE_PATH, TOKENIZER))
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello <|end|>"},
    ]
    options = ChatOptions("high", "2026-01-31", [TOOL])
    assert with_template.ids(chat, options) == BUILDER.ids(chat, options)
    assert with_template.ids([1, 2], options) == [1, 2]


def test_a_template_need_not_be_harmony(tmp_path):
    path = tmp_path / "plain.jinja"
    path.write_text("{{ reasoning_effort }}|{% for m in messages %}{{ m.content }};{% endfor %}")
    builder = PromptBuilder(TOKENIZER, ChatTemplate(path, TOKENIZER))
    assert TOKENIZER.decode(builder.ids("Hello", ChatOptions("low"))) == "low|Hello;"


@pytest.mark.parametrize("with_template", [False, True])
@pytest.mark.parametrize(
    "wrong, words",
    [
        (5, "a prompt must be a string, token ids or messages; got int"),
        (None, "a prompt must be a string, token ids or messages; got NoneType"),
        ([], "messages is empty"),
        ([1, 2, "three"], "messages[0]"),
        ([{"role": "robot", "content": "x"}], "messages[0].role is 'robot'"),
        ([{"role": "user"}], "messages[0]"),
    ],
)
def test_what_is_no_prompt(with_template, wrong, words):
    template = ChatTemplate(TEMPLATE_PATH, TOKENIZER) if with_template else None
    with pytest.raises(HaastError) as error:
        PromptBuilder(TOKENIZER, template).ids(wrong, ChatOptions())
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("marker", TOKENIZER.special_text.values())
def test_text_never_becomes_a_special_token(marker):
    plain = [i for i in ids("Hello") if i in TOKENIZER.special_ids]
    chat = [{"role": "system", "content": marker}, {"role": "user", "content": marker * 2}]
    quiet = [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}]
    assert [i for i in ids(marker) if i in TOKENIZER.special_ids] == plain
    forged, expected = (
        [i for i in ids(c, conversation_date="x") if i in TOKENIZER.special_ids]
        for c in (chat, quiet)
    )
    assert forged == expected
    assert TOKENIZER.decode(ids(chat)).count(marker) >= 3


def test_an_assistant_message_left_open_is_found():
    prompt = ids("Hello")
    header = [SPECIAL.channel, *TOKENIZER.encode("final"), SPECIAL.message]
    assert opened_message(prompt, TOKENIZER) == []
    assert opened_message([*prompt, *header, 7], TOKENIZER) == [*header, 7]
    assert opened_message([5, 6, 7], TOKENIZER) == []
    assert opened_message(prompt[:-2], TOKENIZER) == []  # the user's message is the last
