"""What /openapi.json says of the Responses API: its fields, its items and its answers."""

from haast.serve.openapi_answers import Schema, ref
from haast.serve.openapi_fields import FLAG, STRICT, answer_format
from haast.serve.openapi_messages import NAME
from haast.serve.openapi_rules import STREAM_RULE
from haast.serve.responses_api.body import INCLUDABLE, LOGPROBS, MOVED, REFUSED_IN_RESPONSES

_TEXT: Schema = {"type": "string"}
_MAYBE: Schema = {"type": ["string", "null"]}
REFUSED = {
    name: v for name, v in REFUSED_IN_RESPONSES.items() if name not in MOVED
} | dict.fromkeys(MOVED, ())
"""Fields that are not supported, those with another name here among them"""


FIELDS: dict[str, Schema] = {
    "input": {
        "description": "What the user says, or items; of a stored response they go on with it.",
        "anyOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "items": ref("InputItem"), "minItems": 1},
        ],
        "examples": ["What is a bald eagle?"],
    },
    "instructions": {"description": "What the model is to do; not kept for the next response."},
    "previous_response_id": {"description": "The stored response to go on with."},
    "store": {"description": "Keep the response, so that it can be gone on with.", "default": True},
    "background": {
        "description": "Answer at once and go on in the background; only if it is stored.",
        "default": False,
    },
    "include": {
        "description": f"What else to tell: {LOGPROBS}, or reasoning that the client keeps.",
        "items": {"enum": list(INCLUDABLE)},
    },
    "max_output_tokens": {
        "description": "Longest answer, reasoning included. Default: as long as fits.",
        "minimum": 1,
    },
    "max_tool_calls": {"description": "Accepted; counts tools that the server runs: none."},
    "metadata": {
        "description": "Pairs that are kept with the response.",
        "maxProperties": 16,
        "propertyNames": {"maxLength": 64},
        "additionalProperties": {"type": "string", "maxLength": 512},
    },
    "parallel_tool_calls": {"description": "Accepted; the model writes one call a turn."},
    "prompt_cache_key": {"description": "Accepted; equal beginnings are found without."},
    "prompt_cache_retention": {"description": "Accepted; changes nothing."},
    "safety_identifier": {"description": "Accepted; changes nothing."},
    "user": {"description": "Accepted; changes nothing."},
    "service_tier": {"description": "There is one tier.", "enum": ["auto", "default"]},
    "truncation": {
        "description": "auto = leave out the oldest turns where the input is too long.",
        "enum": ["auto", "disabled"],
        "default": "disabled",
    },
    "text": {"description": "What the answer is to look like."},
    "format": answer_format(schema={"type": "object"}, strict=FLAG),
    "verbosity": {"description": "How much to say.", "enum": ["medium"]},
    "summary": {"description": "The best there is, which is none.", "enum": ["auto"]},
    "generate_summary": {"description": "Older name of summary.", "enum": ["auto"]},
    "context": {"description": "Whose reasoning is kept.", "enum": ["auto", "current_turn"]},
    "mode": {"description": "How to reason.", "enum": ["standard"]},
    "include_obfuscation": {"description": "Nothing is obfuscated.", "enum": [False]},
    "ResponseStreamOptions.continuous_usage_stats": {
        "description": "The last event tells the usage.",
        "enum": [False],
    },
    "ResponseBody.n": {"description": "How many answers.", "enum": [1], "default": 1},
    "ResponseBody.reasoning": {"description": "How to think, and what to tell of it."},
    "ResponseBody.tools": {
        "description": "Functions that the model may call.",
        "items": ref("FunctionTool"),
    },
    "ResponseBody.top_logprobs": {
        "description": f"Of so many likeliest tokens; with {LOGPROBS} in include.",
        "minimum": 0,
        "maximum": 20,
        "default": 0,
    },
    **{
        f"ResponseBody.{name}": {"description": f"Not supported. Here it is {there}.", "enum": []}
        for name, there in MOVED.items()
    },
}
"""As `haast.serve.openapi_fields.FIELDS`"""
RULES: Schema = {
    "allOf": [
        STREAM_RULE,
        {
            "anyOf": [
                {"required": ["input"], "properties": {"input": {"type": ["string", "array"]}}},
                {
                    "required": ["previous_response_id"],
                    "properties": {"previous_response_id": _TEXT},
                },
            ]
        },
        {
            "anyOf": [
                {"properties": {"background": {"enum": [False, None]}}},
                {"properties": {"store": {"enum": [True, None]}}},
            ]
        },
        {
            "anyOf": [
                {"properties": {"top_logprobs": {"enum": [0, None]}}},
                {
                    "required": ["include"],
                    "properties": {"include": {"type": "array", "contains": {"const": LOGPROBS}}},
                },
            ]
        },
    ]
}
"""What holds of several fields together"""


def _item(kind: str, about: str, required: list[str], **fields: Schema) -> Schema:
    return {
        "type": "object",
        "description": about,
        "required": ["type", *required],
        "properties": {"type": {"const": kind}, "id": _MAYBE, **fields},
    }


def _parts(*kinds: str) -> Schema:
    """A list of texts in content parts."""
    part = {
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"enum": list(kinds)}, "text": _TEXT},
    }
    return {"type": "array", "items": part}


_STATUS: Schema = {"enum": ["in_progress", "completed", "incomplete", None]}
_CONTENT: Schema = {"anyOf": [_TEXT, _parts("input_text", "output_text", "text")]}
_REASONING_PARTS = {"anyOf": [_parts("reasoning_text", "text"), {"type": "null"}]}
SCHEMAS: dict[str, Schema] = {
    "InputItem": {
        "anyOf": [
            ref(name)
            for name in (
                "InputMessage",
                "ReasoningItem",
                "FunctionCall",
                "FunctionCallOutput",
                "ItemReference",
            )
        ]
    },
    "InputMessage": {
        "type": "object",
        "description": "What somebody said.",
        "required": ["role", "content"],
        "properties": {
            "type": {"enum": ["message", None]},
            "id": _MAYBE,
            "role": {"enum": ["user", "assistant", "system", "developer"]},
            "content": _CONTENT,
            "status": _STATUS,
            "phase": {
                "enum": ["commentary", "final_answer", None],
                "description": "Of an assistant: whether it was said before a call.",
            },
        },
    },
    "ReasoningItem": _item(
        "reasoning",
        "What the model thought.",
        [],
        summary={"anyOf": [_parts("summary_text"), {"type": "null"}]},
        content=_REASONING_PARTS,
        encrypted_content={**_MAYBE, "description": "As this server gave it."},
    ),
    "FunctionCall": _item(
        "function_call",
        "A function that the model wants called.",
        ["call_id", "name", "arguments"],
        call_id=_TEXT,
        name={"type": "string", "pattern": NAME},
        arguments={"type": "string", "description": "JSON."},
        status=_STATUS,
    ),
    "FunctionCallOutput": _item(
        "function_call_output",
        "What the function answered; its call must come before.",
        ["call_id", "output"],
        call_id=_TEXT,
        output=_CONTENT,
        status=_STATUS,
    ),
    "ItemReference": {
        "type": "object",
        "description": "An item of a stored response.",
        "required": ["id"],
        "properties": {"type": {"enum": ["item_reference", None]}, "id": _TEXT},
    },
    "FunctionTool": {
        "type": "object",
        "required": ["type", "name"],
        "properties": {
            "type": {"const": "function"},
            "name": {"type": "string", "pattern": NAME},
            "description": _MAYBE,
            "parameters": {"type": ["object", "null"], "description": "A JSON schema."},
            "strict": STRICT,
        },
    },
}
"""Name -> schema of what is posted"""
