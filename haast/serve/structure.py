"""The grammar of a reply, where a request needs one."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from haast.engine.request import SamplingParams
from haast.grammars import json_piece
from haast.harmony import CallRule, ReplyRules, Tokenizer, reply_grammar
from haast.serve.errors import invalid
from haast.serve.formats import Format, check_flag, check_piece, schema_piece
from haast.serve.tool_choice import ToolChoice, check_names

_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True)
class Structure:
    """What a reply is held to.

    tools            as chats have them
    form             of the final answer; None = any text
    thinking_budget  tokens of reasoning; None = any number
    parameters       what the request calls the schema of tool {}
    """

    choice: ToolChoice = ToolChoice()
    tools: Sequence[dict[str, Any]] = ()
    form: Format | None = None
    thinking_budget: int | None = None
    parameters: str = "tools[{}].function.parameters"

    @property
    def needs_grammar(self) -> bool:
        """Whether it is something that the model alone might not do."""
        choice = self.choice
        has_strict_tools = choice.mode != "none" and any(map(_is_strict, self.tools))
        is_limited = choice.mode == "required" or choice.names is not None or has_strict_tools
        return is_limited or self.form is not None or self.thinking_budget is not None

    def check_strict(self) -> None:
        """Raise ApiError 400 if `strict` of a tool that may be called is no flag."""
        for index, tool in enumerate(self.tools if self.choice.mode != "none" else ()):
            field = self.parameters.format(index).removesuffix("parameters") + "strict"
            check_flag(field, _function(tool).get("strict"))

    def grammar(self, tokenizer: Tokenizer) -> str:
        """What the reply may be. Tools that may be called must have been rendered, and so be
        well-formed; with `none` nobody looks at them.

        Raises ApiError 400 naming the field.
        """
        budget = self.thinking_budget
        if budget is not None and budget < 0:
            raise invalid("thinking_token_budget", "thinking_token_budget must be at least 0")
        offered = () if self.choice.mode == "none" else self.tools
        names = [_function(tool)["name"].removeprefix("functions.") for tool in offered]
        check_names(self.choice, names)
        calls = [
            self._call(index, name) for index, name in enumerate(names) if self.choice.allows(name)
        ]
        answer = None if self.form is None else self.form.piece
        may_answer = self.choice.mode != "required"
        return reply_grammar(ReplyRules(calls, may_answer, answer, budget), tokenizer)

    def _call(self, index: int, name: str) -> CallRule:
        """Arguments follow the schema if the call is asked for, or the tool is strict."""
        tool = self.tools[index]
        is_strict = _is_strict(tool)
        if not is_strict and self.choice.mode != "required":
            return CallRule(name, json_piece({"type": "object"}, is_strict=True))
        parameters = _function(tool).get("parameters")
        schema = _NO_ARGUMENTS if parameters is None else parameters
        field = self.parameters.format(index)
        piece = schema_piece(field, schema, is_strict=is_strict)
        check_piece(field, piece)
        return CallRule(name, piece)


async def held(
    params: SamplingParams, structure: Structure, opened: Sequence[int], tokenizer: Tokenizer
) -> SamplingParams:
    """The same params, with a grammar if the structure needs one.

    structure  its tools have been rendered, unless none may be called
    opened     ids of the message that the prompt leaves open
    Raises ApiError 400 naming the field.
    """
    structure.check_strict()
    if not structure.needs_grammar:
        return params
    if opened:
        raise invalid("messages", "the chat template begins the answer, which leaves no room")
    grammar = await asyncio.to_thread(structure.grammar, tokenizer)
    return replace(params, grammar=grammar)


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function: Mapping[str, Any] = tool["function"]
    return function


def _is_strict(tool: Mapping[str, Any]) -> bool:
    function = tool.get("function")
    return isinstance(function, Mapping) and function.get("strict") is True
