"""What chat-completions input becomes."""

import pytest

from haast.harmony import Conversation, Message, Tool, from_chat

from .chats import USER, assistant, call, result


def summary(*messages):
    return [(m.role, m.channel, m.recipient, m.content) for m in from_chat(list(messages)).messages]


def test_system_and_developer_messages_join_the_instructions():
    chat = [
        {"role": "system", "content": "A"},
        USER,
        {"role": "developer", "content": [{"type": "text", "text": "B"}]},
        {"role": "system", "content": ""},
    ]
    assert from_chat(chat) == Conversation((Message("user", "hi"),), instructions="A\n\nB")


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": " b"}]
    assert summary({"role": "user", "content": parts}) == [("user", None, None, "a b")]


def test_tool_loop_keeps_reasoning_and_text_becomes_a_preamble():
    loop = assistant(reasoning="hm", content="Let me see.", tool_calls=[call("functions.f")])
    conversation = from_chat([USER, loop, result(tool_call_id="call_1")])
    assert conversation.messages == (
        Message("user", "hi"),
        Message("assistant", "hm", channel="analysis"),
        Message("assistant", "Let me see.", channel="commentary"),
        Message("assistant", "{}", None, "commentary", "functions.f", "json"),
        Message("tool", "42", "functions.f", "commentary", "assistant"),
    )


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_reasoning_goes_once_the_user_speaks_again(key):
    turn = [assistant(content=None, tool_calls=[call()], **{key: "one"}), result(name="f")]
    answer = assistant(content="4", **{key: "two"})
    thoughts = [m[3] for m in summary(USER, *turn, answer) if m[1] == "analysis"]
    assert thoughts == ["one", "two"]
    assert "analysis" not in [m[1] for m in summary(USER, *turn, answer, USER)]
    later = summary(USER, *turn, answer, USER, assistant(tool_calls=[call()], **{key: "three"}))
    assert [m[3] for m in later if m[1] == "analysis"] == ["three"]


def test_ids_may_repeat_in_later_turns():
    chat = [assistant(tool_calls=[call("f")]), result(tool_call_id="call_1")]
    chat += [assistant(tool_calls=[call("g")]), result(tool_call_id="call_1")]
    assert [m.name for m in from_chat(chat).messages if m.role == "tool"] == [
        "functions.f",
        "functions.g",
    ]


def test_several_calls_stay_in_order():
    calls = [call("f", "1", "a"), call("g", "2", "b")]
    chat = [assistant(tool_calls=calls), result("y", tool_call_id="b")]
    assert summary(*chat) == [
        ("assistant", "commentary", "functions.f", "1"),
        ("assistant", "commentary", "functions.g", "2"),
        ("tool", "commentary", "assistant", "y"),
    ]


def test_arguments_are_replayed_as_written_and_objects_accepted():
    odd = '{ "x":\n1 '
    assert summary(assistant(tool_calls=[call(arguments=odd)]))[0][3] == odd
    assert summary(assistant(tool_calls=[call(arguments={"x": "é"})]))[0][3] == '{"x": "é"}'


def test_empty_contents():
    assert summary(assistant(content="")) == [("assistant", "final", None, "")]
    assert len(summary(assistant(content="", tool_calls=[call()]))) == 1
    assert summary(assistant(reasoning="hm")) == [("assistant", "analysis", None, "hm")]
    assert summary(USER, assistant(reasoning="hm"), USER)[1:] == [("user", None, None, "hi")]


def test_tools():
    schema = {"type": "object", "properties": {}}
    tools = [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}},
        {"type": "function", "function": {"name": "functions.g", "strict": True}},
    ]
    assert from_chat([USER], tools).tools == (Tool("f", "d", schema), Tool("g"))
    assert from_chat([USER], []).tools == ()
