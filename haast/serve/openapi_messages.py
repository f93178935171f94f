"""Schemas of what a conversation consists of, as `haast.harmony.from_chat` takes it."""

from haast.serve.openapi_answers import Schema, ref
from haast.serve.openapi_fields import STRICT

NAME = r"^[^\s\x1c-\x1f\x85<{]+$"
"""Of a function. These control characters are blanks to Python, but not to the \\s of others"""


def _message(roles: list[str], about: str, required: list[str], **properties: Schema) -> Schema:
    role: Schema = {"const": roles[0]} if len(roles) == 1 else {"enum": roles}
    return {
        "type": "object",
        "description": about,
        "required": ["role", *required],
        "properties": {"role": role, **properties},
    }


_CONTENT = {
    "description": "A text, or parts that are joined.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": ref("TextPart")}],
}
_REASONING = {
    "type": ["string", "null"],
    "description": "Kept while the model calls tools, dropped once the user has spoken again.",
}
MESSAGES: dict[str, Schema] = {
    "Message": {
        "anyOf": [
            ref(name)
            for name in ("InstructionMessage", "UserMessage", "AssistantMessage", "ToolMessage")
        ]
    },
    "InstructionMessage": _message(
        ["system", "developer"], "What the model is to do.", ["content"], content=_CONTENT
    ),
    "UserMessage": _message(["user"], "What a user says.", ["content"], content=_CONTENT),
    "AssistantMessage": _message(
        ["assistant"],
        "An earlier answer, with content, tool calls or both.",
        [],
        content={"anyOf": [*_CONTENT["anyOf"], {"type": "null"}]},
        reasoning=_REASONING,
        reasoning_content=_REASONING,
        tool_calls={"type": ["array", "null"], "items": ref("ToolCall")},
        phase={
            "description": "commentary = said before calls.",
        },
    )
    | {
        "anyOf": [
            {"required": ["content"], "properties": {"content": {"not": {"type": "null"}}}},
            {
                "required": ["tool_calls"],
                "properties": {"tool_calls": {"type": "array", "minItems": 1}},
            },
            {
                "required": ["reasoning"],
                "properties": {"reasoning": {"type": "string", "minLength": 1}},
            },
        ]
    },
    "ToolMessage": _message(
        ["tool"],
        "What a called function answered. Which one: by the id of a call before it, else by name.",
        ["content", "name"],
        content=_CONTENT,
        tool_call_id={"type": ["string", "null"]},
        name={
            "type": "string",
            "pattern": NAME,
            "description": "May be left out where tool_call_id is that of a call before.",
        },
    ),
    "TextPart": {
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    },
    "ToolCall": {
        "type": "object",
        "required": ["function"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "type": {"const": "function"},
            "function": {
                "type": "object",
                "required": ["name", "arguments"],
                "properties": {
                    "name": {"type": "string", "pattern": NAME},
                    "arguments": {
                        "type": ["string", "object"],
                        "description": "JSON, as text or as it is.",
                    },
                },
            },
        },
    },
    "Tool": {
        "type": "object",
        "required": ["function"],
        "properties": {
            "type": {"const": "function"},
            "function": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "pattern": NAME},
                    "description": {"type": ["string", "null"]},
                    "parameters": {
                        "type": ["object", "null"],
                        "description": "A JSON schema of the arguments, at most 100 levels deep.",
                    },
                    "strict": STRICT,
                },
            },
        },
    },
}
"""Name -> schema, by the names that they refer to each other"""
