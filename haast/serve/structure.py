"""The grammar of a chat's reply, where the request needs one."""

from collections.abc import Mapping
from typing import Any

from haast.grammars import json_piece
from haast.harmony import CallRule, ReplyRules, Tokenizer, reply_grammar
from haast.serve.errors import invalid
from haast.serve.formats import Format, check_piece, schema_piece
from haast.serve.protocol import ChatBody
from haast.serve.tool_choice import ToolChoice, check_names

_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


def needs_grammar(body: ChatBody, choice: ToolChoice, form: Format | None) -> bool:
    """Whether a chat asks for something that the model alone might not do."""
    has_strict_tools = choice.mode != "none" and any(map(_is_strict, body.tools or []))
    is_limited = choice.mode == "required" or choice.names is not None or has_strict_tools
    return is_limited or form is not None or body.thinking_token_budget is not None


def chat_grammar(
    body: ChatBody, choice: ToolChoice, form: Format | None, tokenizer: Tokenizer
) -> str:
    """What the reply to a chat may be; its tools must have been rendered, and so be well-formed.

    Raises ApiError 400 naming the field.
    """
    budget = body.thinking_token_budget
    if budget is not None and budget < 0:
        raise invalid("thinking_token_budget", "thinking_token_budget must be at least 0")
    names = [_function(tool)["name"].removeprefix("functions.") for tool in body.tools or []]
    check_names(choice, names)
    calls = [
        _call(f"tools[{index}].function.parameters", name, tool, choice)
        for index, (name, tool) in enumerate(zip(names, body.tools or [], strict=True))
        if choice.allows(name)
    ]
    rules = ReplyRules(
        calls,
        may_answer=choice.mode != "required",
        answer=None if form is None else form.piece,
        thinking_budget=budget,
    )
    return reply_grammar(rules, tokenizer)


def _call(field: str, name: str, tool: Mapping[str, Any], choice: ToolChoice) -> CallRule:
    """Arguments follow the schema if the call is asked for, or the tool is strict."""
    is_strict = _is_strict(tool)
    if not is_strict and choice.mode != "required":
        return CallRule(name, json_piece({"type": "object"}, is_strict=True))
    parameters = _function(tool).get("parameters")
    schema = _NO_ARGUMENTS if parameters is None else parameters
    piece = schema_piece(field, schema, is_strict=is_strict)
    check_piece(field, piece)
    return CallRule(name, piece)


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function: Mapping[str, Any] = tool["function"]
    return function


def _is_strict(tool: Mapping[str, Any]) -> bool:
    function = tool.get("function")
    return isinstance(function, Mapping) and function.get("strict") is True
