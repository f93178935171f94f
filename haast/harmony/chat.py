"""OpenAI chat-completions messages and tools to a harmony conversation."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from haast.harmony.messages import Conversation, ConversationError, Message, Tool

ROLES = ("system", "developer", "user", "assistant", "tool")
_NAMESPACE = "functions."
_NOT_READ = ("refusal", "audio", "function_call")
"""What an assistant message may have in OpenAI's API and has no place for in harmony"""
# Deeper schemas would exhaust the stack of every recursive reader, ours and the JSON module's.
_MAX_SCHEMA_DEPTH = 100
Fields = Mapping[str, Any]


def from_chat(messages: object, tools: object = None) -> Conversation:
    """Conversation of the `messages` and `tools` fields of a chat-completions request.

    Every system and developer message joins the developer instructions, in order.
    An assistant's text next to tool calls is a preamble, and so it is if the message says
    `"phase": "commentary"`; its reasoning is kept only if no user message follows, so a tool
    loop keeps it and finished turns lose it.
    The author name of a user or assistant message is ignored.
    Raises ConversationError: one line with the message's index, what it has, what is allowed.
    """
    entries = [_checked(index, entry) for index, entry in enumerate(_list("messages", messages))]
    if not entries:
        raise ConversationError("messages is empty; at least one message is needed")
    instructions = [
        _text(index, entry) for index, entry in enumerate(entries) if _is_instruction(entry)
    ]
    return Conversation(
        messages=tuple(_turns(entries)),
        instructions="\n\n".join(filter(None, instructions)) or None,
        tools=tuple(_tool(index, tool) for index, tool in enumerate(_list("tools", tools or []))),
    )


def _turns(entries: list[Fields]) -> Iterator[Message]:
    last_user = max((i for i, entry in enumerate(entries) if entry["role"] == "user"), default=-1)
    names: dict[str, str] = {}
    for index, entry in enumerate(entries):
        if entry["role"] == "user":
            yield Message("user", _text(index, entry))
        elif entry["role"] == "assistant":
            yield from _assistant(index, entry, names, keep_reasoning=index > last_user)
        elif entry["role"] == "tool":
            yield _tool_result(index, entry, names)


def _assistant(
    index: int, entry: Fields, names: dict[str, str], keep_reasoning: bool
) -> Iterator[Message]:
    """Reasoning, text and calls of one assistant entry; notes each call's id in `names`."""
    for key in _NOT_READ:
        if entry.get(key) is not None:
            raise ConversationError(
                f"messages[{index}].{key} is not supported; allowed: content, tool_calls"
            )
    reasoning = _reasoning(index, entry)
    calls = _list(f"messages[{index}].tool_calls", entry.get("tool_calls") or [])
    if reasoning and keep_reasoning:
        yield Message("assistant", reasoning, channel="analysis")
    if entry.get("content") is None and not calls and not reasoning:
        raise ConversationError(
            f"messages[{index}] (assistant) has no content; allowed without it: tool_calls"
        )
    text = "" if entry.get("content") is None else _text(index, entry)
    is_preamble = bool(calls) or entry.get("phase") == "commentary"
    if text or (not is_preamble and entry.get("content") is not None):
        yield Message("assistant", text, channel="commentary" if is_preamble else "final")
    for position, call in enumerate(calls):
        yield _tool_call(f"messages[{index}].tool_calls[{position}]", call, names)


def _tool_call(where: str, call: object, names: dict[str, str]) -> Message:
    function = _dict(f"{where}.function", _dict(where, call).get("function"))
    name = _name(f"{where}.function.name", function.get("name"))
    call_id = _dict(where, call).get("id")
    if call_id is not None:
        names[_string(f"{where}.id", call_id)] = name
    arguments = function.get("arguments")
    if isinstance(arguments, Mapping):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return Message(
        "assistant",
        _string(f"{where}.function.arguments", arguments),
        channel="commentary",
        recipient=_NAMESPACE + name,
        content_type="json",
    )


def _tool_result(index: int, entry: Fields, names: dict[str, str]) -> Message:
    call_id, name = entry.get("tool_call_id"), entry.get("name")
    if isinstance(call_id, str) and call_id in names:
        name = names[call_id]
    elif name is None:
        known = ", ".join(map(repr, names)) or "none"
        raise ConversationError(
            f"messages[{index}] (tool) answers unknown tool_call_id {call_id!r}; known: {known}"
        )
    full_name = _NAMESPACE + _name(f"messages[{index}].name", name)
    return Message(
        "tool", _text(index, entry), name=full_name, channel="commentary", recipient="assistant"
    )


def _tool(index: int, tool: object) -> Tool:
    where = f"tools[{index}]"
    fields = _dict(where, tool)
    if fields.get("type", "function") != "function":
        raise ConversationError(f"{where}.type is {fields['type']!r}; allowed: 'function'")
    function = _dict(f"{where}.function", fields.get("function"))
    parameters = function.get("parameters")
    if parameters is not None:
        check_depth(f"{where}.function.parameters", parameters)
    return Tool(
        _name(f"{where}.function.name", function.get("name")),
        _string(f"{where}.function.description", function.get("description") or ""),
        parameters,
    )


def _checked(index: int, entry: object) -> Fields:
    fields = _dict(f"messages[{index}]", entry)
    if fields.get("role") not in ROLES:
        raise ConversationError(
            f"messages[{index}].role is {fields.get('role')!r}; allowed: {', '.join(ROLES)}"
        )
    return fields


def _is_instruction(entry: Fields) -> bool:
    return entry["role"] in ("system", "developer")


def _text(index: int, entry: Fields) -> str:
    """Content as one string: itself, or the texts of its parts joined."""
    where, content = f"messages[{index}]", entry.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ConversationError(
            f"{where}.content ({entry['role']}) is {_kind(content)}; "
            "allowed: a string or a list of text parts"
        )
    return "".join(_part(f"{where}.content[{i}]", part) for i, part in enumerate(content))


def _part(where: str, part: object) -> str:
    fields = _dict(where, part)
    if fields.get("type") != "text":
        raise ConversationError(f"{where}.type is {fields.get('type')!r}; allowed: 'text'")
    return _string(f"{where}.text", fields.get("text"))


def _reasoning(index: int, entry: Fields) -> str:
    for key in ("reasoning", "reasoning_content"):
        if entry.get(key) is not None:
            return _string(f"messages[{index}].{key}", entry[key])
    return ""


def _name(where: str, value: object) -> str:
    """A bare function name. Blanks or markup in it would break the header it is written into."""
    name = _string(where, value).removeprefix(_NAMESPACE)
    if not re.fullmatch(r"[^\s<{]+", name):
        raise ConversationError(f"{where} is {value!r}; allowed: a name without blanks, '<', '{{'")
    return name


def check_depth(where: str, schema: object) -> None:
    """Raise ConversationError if a schema, found at `where`, is nested too deeply to be read."""
    level: list[object] = [_dict(where, schema)]
    for _ in range(_MAX_SCHEMA_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise ConversationError(f"{where} is nested deeper than {_MAX_SCHEMA_DEPTH} levels")


def _children(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []


def _dict(where: str, value: object) -> Fields:
    if not isinstance(value, Mapping):
        raise ConversationError(f"{where} is {_kind(value)}; allowed: an object")
    return value


def _list(where: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise ConversationError(f"{where} is {_kind(value)}; allowed: a list")
    return value


def _string(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConversationError(f"{where} is {_kind(value)}; allowed: a string")
    return value


def _kind(value: object) -> str:
    return "missing" if value is None else f"of type {type(value).__name__}"
