"""What an answer is held to, beyond what the model would write anyway."""

import asyncio
from collections.abc import Mapping
from typing import Any

from haast.serve.errors import ApiError, invalid
from haast.serve.formats import asks_for_format, format_of
from haast.serve.responses_api.body import ResponseBody
from haast.serve.responses_api.conversation import to_tools
from haast.serve.structure import Structure
from haast.serve.tool_choice import tool_choice_of

TEXT = {"type": "text"}


async def constraint_of(body: ResponseBody) -> Structure:
    """The one place that reads `text.format` and `tool_choice`.

    Raises ApiError 400 naming the field.
    """
    has_format = body.text is not None or asks_for_format(body)
    return await asyncio.to_thread(_read, body) if has_format else _read(body)


def _read(body: ResponseBody) -> Structure:
    tools = to_tools(body.tools) or []
    try:
        choice = tool_choice_of(_nested(body.tool_choice), tools)
    except ApiError as error:
        raise _flat(error) from None
    form = format_of(body, body.text.format if body.text else None, "text.format")
    budget = body.thinking_token_budget
    return Structure(choice, tools, form, budget, parameters="tools[{}].parameters")


def _nested(choice: str | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    """A choice as chats have it, where functions and lists have a place of their own."""
    if not isinstance(choice, Mapping):
        return choice
    if choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if choice.get("type") == "allowed_tools" and isinstance(choice.get("tools"), list):
        tools = [_nested(tool) for tool in choice["tools"]]
        return {"type": "allowed_tools", "allowed_tools": {**choice, "tools": tools}}
    return choice


def _flat(error: ApiError) -> ApiError:
    """An error with the names that the Responses API has."""
    param, message = (
        text.replace(".allowed_tools", "").replace(".function.", ".")
        for text in (error.param or "tool_choice", error.message)
    )
    return invalid(param, message)
