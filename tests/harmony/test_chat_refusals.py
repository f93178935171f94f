"""Wrong chat-completions input is refused in one clear line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haast.harmony import ConversationError, from_chat

from .chats import USER, assistant, call, result


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def tool(**fields):
    return [{"type": "function", "function": {"name": "f"} | fields}]


REFUSED = [
    ("hi", None, "messages is of type str; allowed: a list"),
    (None, None, "messages is missing; allowed: a list"),
    ([], None, "messages is empty; at least one message is needed"),
    ([USER, 3], None, "messages[1] is of type int; allowed: an object"),
    (
        [USER, assistant(content="x", function_call={"name": "f", "arguments": ""})],
        None,
        "messages[1].function_call is not supported; allowed: content, tool_calls",
    ),
    (
        [USER, assistant(refusal="No.")],
        None,
        "messages[1].refusal is not supported; allowed: content, tool_calls",
    ),
    (
        [USER, {"role": "bot", "content": "x"}],
        None,
        "messages[1].role is 'bot'; allowed: system, developer, user, assistant, tool",
    ),
    (
        [{"content": "x"}],
        None,
        "messages[0].role is None; allowed: system, developer, user, assistant, tool",
    ),
    (
        [{"role": "user"}],
        None,
        "messages[0].content (user) is missing; allowed: a string or a list of text parts",
    ),
    (
        [{"role": "system", "content": 3}],
        None,
        "messages[0].content (system) is of type int; allowed: a string or a list of text parts",
    ),
    (
        [{"role": "user", "content": [{"type": "image_url"}]}],
        None,
        "messages[0].content[0].type is 'image_url'; allowed: 'text'",
    ),
    (
        [{"role": "user", "content": [{"type": "text"}]}],
        None,
        "messages[0].content[0].text is missing; allowed: a string",
    ),
    (
        [{"role": "user", "content": ["x"]}],
        None,
        "messages[0].content[0] is of type str; allowed: an object",
    ),
    (
        [USER, assistant(content=None)],
        None,
        "messages[1] (assistant) has no content; allowed without it: tool_calls",
    ),
    (
        [assistant(content="x", reasoning=1)],
        None,
        "messages[0].reasoning is of type int; allowed: a string",
    ),
    (
        [assistant(tool_calls={"id": 1})],
        None,
        "messages[0].tool_calls is of type dict; allowed: a list",
    ),
    (
        [assistant(tool_calls=[{"id": "1"}])],
        None,
        "messages[0].tool_calls[0].function is missing; allowed: an object",
    ),
    (
        [assistant(tool_calls=[call(arguments=None)])],
        None,
        "messages[0].tool_calls[0].function.arguments is missing; allowed: a string",
    ),
    (
        [assistant(tool_calls=[call(call_id=1)])],
        None,
        "messages[0].tool_calls[0].id is of type int; allowed: a string",
    ),
    (
        [assistant(tool_calls=[call("f\n<|end|>")])],
        None,
        "messages[0].tool_calls[0].function.name is 'f\\n<|end|>'; "
        "allowed: a name without blanks, '<', '{'",
    ),
    (
        [assistant(tool_calls=[call()]), result(tool_call_id="other")],
        None,
        "messages[1] (tool) answers unknown tool_call_id 'other'; known: 'call_1'",
    ),
    ([result()], None, "messages[0] (tool) answers unknown tool_call_id None; known: none"),
    (
        [result(None, name="f")],
        None,
        "messages[0].content (tool) is missing; allowed: a string or a list of text parts",
    ),
    ([USER], {"f": 1}, "tools is of type dict; allowed: a list"),
    ([USER], ["f"], "tools[0] is of type str; allowed: an object"),
    ([USER], [{"type": "web_search"}], "tools[0].type is 'web_search'; allowed: 'function'"),
    ([USER], [{"name": "f"}], "tools[0].function is missing; allowed: an object"),
    ([USER], tool(name=None), "tools[0].function.name is missing; allowed: a string"),
    (
        [USER],
        tool(parameters=[]),
        "tools[0].function.parameters is of type list; allowed: an object",
    ),
    (
        [USER],
        tool(description=3),
        "tools[0].function.description is of type int; allowed: a string",
    ),
    (
        [USER],
        tool(parameters=nested(100)),
        "tools[0].function.parameters is nested deeper than 100 levels",
    ),
]


@pytest.mark.parametrize(("messages", "tools", "line"), REFUSED)
def test_bad_input_is_one_line(messages, tools, line):
    with pytest.raises(ConversationError) as caught:
        from_chat(messages, tools)
    assert str(caught.value) == line


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "f", "user", "tool", "text"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "tool_calls", "function", "name"]),
            inner,
            max_size=4,
        )
    ),
)
entries = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
    optional=dict.fromkeys(["content", "tool_calls", "tool_call_id", "name", "reasoning"], junk),
)


@settings(max_examples=300, deadline=None)
@given(junk | st.lists(entries | junk, max_size=4), junk)
def test_any_json_is_converted_or_refused_in_one_line(messages, tools):
    try:
        conversation = from_chat(messages, tools)
    except ConversationError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(message.content, str) for message in conversation.messages)
