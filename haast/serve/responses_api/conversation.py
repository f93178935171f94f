"""Items to the chat messages that the renderer knows, and a conversation to prompt ids."""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from haast.serve.errors import ApiError, invalid
from haast.serve.responses_api.items import Item, text_of

Chat = list[dict[str, Any]]
_MESSAGE = re.compile(r"messages\[(\d+)\](\.tool_calls\[\d+\](\.function)?)?")
_TOOL = re.compile(r"(tools\[\d+\])\.function")
_PATH = re.compile(r"(input|tools)(\[\d+\])?(\.\w+)*")


def to_chat(items: Sequence[Item], instructions: str | None) -> tuple[Chat, list[int | None]]:
    """Chat messages, and of each the number of the item that it ends with.

    Reasoning, what is said and calls become one message each time they stand in this order.
    What an assistant says before it calls a function is a preamble, whether the item knows its
    phase or not. Reasoning without a text, such as a summary, is left out.
    Raises ApiError 400 if an output answers no call.
    """
    chat: Chat = []
    origins: list[int | None] = []
    if instructions:
        chat.append({"role": "developer", "content": instructions})
        origins.append(None)
    known: set[str] = set()
    calls_after = _calls_after(items)
    for number, item in enumerate(items):
        message = _message(item, known, calls_after[number])
        if message is None:
            continue
        if chat and _follows(chat[-1], message):
            chat[-1] |= message
            origins[-1] = number  # of a message only its call can be wrong
        else:
            chat.append(message)
            origins.append(number)
    return chat, origins


def to_tools(tools: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Functions of the Responses API as those of chat completions. ApiError 400 for other tools."""
    nested = []
    for index, tool in enumerate(tools or ()):
        kind = tool.get("type")
        if kind != "function":
            path = f"tools[{index}].type"
            raise invalid(path, f"{path} is {kind!r}; allowed: 'function'")
        function = {key: value for key, value in tool.items() if key != "type"}
        nested.append({"type": "function", "function": function})
    return nested or None


def fitted(render: Callable[[Chat], list[int]], chat: Chat, limit: int) -> list[int]:
    """Prompt ids without as many of the oldest turns as it takes to have `limit` of them.

    The instructions and the last turn always stay.
    """
    ids = render(chat)
    starts = [index for index, message in enumerate(chat) if message["role"] == "user"][1:]
    if len(ids) <= limit or not starts:
        return ids

    def since(start: int) -> list[int]:
        instructions = [m for m in chat[:start] if m["role"] in ("system", "developer")]
        return render(instructions + chat[start:])

    at = bisect_left(starts, True, key=lambda start: len(since(start)) <= limit)
    return since(starts[min(at, len(starts) - 1)])


def renamed(error: Exception, origins: Sequence[int | None], num_before: int) -> ApiError:
    """An error of rendering with the names that the request has.

    num_before  items of the conversation that the request itself does not have
    """

    def place(found: re.Match[str]) -> str:
        number = origins[int(found[1])]
        is_own = number is not None and number >= num_before
        return f"input[{number - num_before}]" if number is not None and is_own else "input"

    text = _TOOL.sub(r"\1", _MESSAGE.sub(place, str(error)))
    text = text.replace("messages is empty; at least one message", "input is empty; an item")
    path = _PATH.match(text)
    return ApiError(400, text, param=path[0] if path else "input")


def _calls_after(items: Sequence[Item]) -> list[bool]:
    """Of each item whether a call follows in its turn."""
    found, calls = [], False
    for item in reversed(items):
        found.append(calls)
        calls = (calls and item.get("role") != "user") or item["type"] == "function_call"
    return found[::-1]


def _message(item: Item, known: set[str], calls_after: bool) -> dict[str, Any] | None:
    if item["type"] == "reasoning":
        text = text_of(item["content"])
        return {"role": "assistant", "reasoning": text} if text else None
    if item["type"] == "function_call":
        known.add(item["call_id"])
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        return {"role": "assistant", "tool_calls": [call]}
    if item["type"] == "function_call_output":
        name = item["call_id"]
        if name not in known:
            message = f"No tool call found for function call output with call_id {name}."
            raise invalid("input", message)
        return {"role": "tool", "tool_call_id": name, "content": text_of(item["output"])}
    said = {"role": item["role"], "content": text_of(item["content"])}
    if item["role"] != "assistant":
        return said
    default = "commentary" if calls_after else "final_answer"
    return said | {"phase": item.get("phase", default)}


def _follows(last: dict[str, Any], message: dict[str, Any]) -> bool:
    """Whether a message goes on with the last one: reasoning, then content, then a call."""
    if {last["role"], message["role"]} != {"assistant"} or "tool_calls" in last:
        return False
    if "tool_calls" in message:
        return last.get("phase") != "final_answer"
    return "content" in message and "content" not in last
