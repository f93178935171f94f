"""Which tools a chat may call, and whether it has to call one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from haast.serve.errors import invalid

Mode = Literal["auto", "none", "required"]
_WITH_CALLS: tuple[Mode, ...] = ("auto", "required")
_MODES: tuple[Mode, ...] = (*_WITH_CALLS, "none")


@dataclass(frozen=True)
class ToolChoice:
    """What `tool_choice` says.

    names  of the tools that may be called; None = all
    """

    mode: Mode = "auto"
    names: frozenset[str] | None = None

    def allows(self, name: str) -> bool:
        return self.mode != "none" and (self.names is None or name in self.names)


def tool_choice_of(given: str | Mapping[str, Any] | None, tools: Collection[Any]) -> ToolChoice:
    """Raises ApiError 400 naming `tool_choice`, or the part of it that is wrong."""
    choice = _read(given)
    if choice.mode == "required" and not tools:
        raise invalid("tool_choice", "tool_choice asks for a call, but there are no tools")
    return choice


def check_names(choice: ToolChoice, known: list[str]) -> None:
    """Raise ApiError 400 if a tool is chosen that there is not."""
    unknown = sorted((choice.names or frozenset()) - {*known})
    if unknown:
        names = ", ".join(map(repr, known)) or "none"
        raise invalid("tool_choice", f"tool_choice names {unknown[0]!r}; the tools are: {names}")


def _read(given: str | Mapping[str, Any] | None) -> ToolChoice:
    if given is None:
        return ToolChoice()
    if isinstance(given, str):
        return ToolChoice(_mode("tool_choice", given))
    if given.get("type") == "function":
        return ToolChoice("required", frozenset({_name("tool_choice", given)}))
    if given.get("type") == "allowed_tools":
        return _allowed_tools("tool_choice.allowed_tools", given.get("allowed_tools"))
    kind = given.get("type")
    message = f"tool_choice.type is {kind!r}; allowed: 'function', 'allowed_tools'"
    raise invalid("tool_choice.type", message)


def _allowed_tools(field: str, given: object) -> ToolChoice:
    tools = given.get("tools") if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or not isinstance(tools, list) or not tools:
        raise invalid(field, f"{field} must be an object with a list of tools")
    names = frozenset(_name(f"{field}.tools[{index}]", tool) for index, tool in enumerate(tools))
    return ToolChoice(_mode(f"{field}.mode", given.get("mode", "auto"), _WITH_CALLS), names)


def _mode(field: str, given: object, allowed: tuple[Mode, ...] = _MODES) -> Mode:
    for mode in allowed:
        if given == mode:
            return mode
    raise invalid(field, f"{field} is {given!r}; allowed: {', '.join(map(repr, allowed))}")


def _name(field: str, tool: object) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise invalid(f"{field}.function.name", f"{field}.function.name must be a string")
    return name.removeprefix("functions.")
