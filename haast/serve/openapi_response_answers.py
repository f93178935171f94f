"""Schemas of what the Responses API answers."""

from haast.serve.openapi_answers import Schema, a_list, an_object, or_null, ref

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_MAYBE: Schema = {"type": ["string", "null"]}
_TIME: Schema = {"type": ["integer", "null"]}
_STATUS: Schema = {"enum": ["in_progress", "completed", "incomplete"]}
_ANY: Schema = {"type": "object"}
_ONE = "/v1/responses/{response_id}"

ANSWERS: dict[str, Schema] = {
    "Response": an_object(
        "A response, whole or while it comes about, with what was asked.",
        id=_TEXT,
        object={"const": "response"},
        created_at={"type": "integer"},
        completed_at=_TIME,
        status={
            "enum": ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
        },
        model=_TEXT,
        output=a_list(ref("OutputItem")),
        usage=or_null(ref("ResponseUsage")),
        error=or_null(an_object("Why it failed.", code=_TEXT, message=_TEXT)),
        incomplete_details=or_null(an_object("Why it was cut off.", reason=_TEXT)),
        background={"type": "boolean"},
        instructions=_MAYBE,
        max_output_tokens=_TIME,
        max_tool_calls=_TIME,
        metadata={"type": "object", "additionalProperties": _TEXT},
        parallel_tool_calls={"type": "boolean"},
        previous_response_id=_MAYBE,
        prompt_cache_key=_MAYBE,
        reasoning=an_object("How it was thought.", effort=_TEXT, summary={"type": "null"}),
        safety_identifier=_MAYBE,
        service_tier={"const": "default"},
        store={"type": "boolean"},
        temperature={"type": "number"},
        text=_ANY,
        tool_choice={"type": ["string", "object"]},
        tools=a_list(_ANY),
        top_logprobs=_COUNT,
        top_p={"type": "number"},
        truncation=_TEXT,
        user=_MAYBE,
    ),
    "OutputItem": {
        "anyOf": [ref("OutputMessage"), ref("OutputReasoning"), ref("OutputFunctionCall")]
    },
    "OutputMessage": an_object(
        "What the model says.",
        id=_TEXT,
        type={"const": "message"},
        status=_STATUS,
        role={"const": "assistant"},
        phase={"enum": ["commentary", "final_answer"]},
        content=a_list(
            an_object(
                "A text.",
                type={"const": "output_text"},
                text=_TEXT,
                annotations={"type": "array", "maxItems": 0},
                logprobs=a_list(ref("TokenLogprob")),
            )
        ),
    ),
    "OutputReasoning": an_object(
        "What the model thinks.",
        {"encrypted_content": _TEXT},
        id=_TEXT,
        type={"const": "reasoning"},
        status=_STATUS,
        summary={"type": "array", "maxItems": 0},
        content=a_list(an_object("A text.", type={"const": "reasoning_text"}, text=_TEXT)),
    ),
    "OutputFunctionCall": an_object(
        "A function that the model wants called.",
        id=_TEXT,
        type={"const": "function_call"},
        status=_STATUS,
        call_id=_TEXT,
        name=_TEXT,
        arguments={"type": "string", "description": "JSON."},
    ),
    "ResponseUsage": an_object(
        "Tokens, special ones included.",
        input_tokens=_COUNT,
        input_tokens_details=an_object("Cache.", cached_tokens=_COUNT, cache_write_tokens=_COUNT),
        output_tokens=_COUNT,
        output_tokens_details=an_object("Of the analysis channel.", reasoning_tokens=_COUNT),
        total_tokens=_COUNT,
    ),
    "ResponseEvent": {
        "type": "object",
        "description": "An event of a streamed response; the other fields depend on the type.",
        "required": ["type", "sequence_number"],
        "properties": {
            "type": {"type": "string", "description": "As OpenAI names them: response.created..."},
            "sequence_number": _COUNT,
            "response": {"$ref": "#/components/schemas/Response"},
            "item": ref("OutputItem"),
            "delta": _TEXT,
        },
    },
    "DeletedResponse": an_object(
        "A response that is forgotten.",
        id=_TEXT,
        object={"const": "response"},
        deleted={"const": True},
    ),
    "InputTokens": an_object(
        "Size of a prompt.", object={"const": "response.input_tokens"}, input_tokens=_COUNT
    ),
    "ItemList": an_object(
        "A page of items.",
        object={"const": "list"},
        data=a_list(_ANY),
        first_id=_MAYBE,
        last_id=_MAYBE,
        has_more={"type": "boolean"},
    ),
}
"""Name -> schema"""
JSON: dict[tuple[str, str], str] = {
    ("POST", "/v1/responses"): "Response",
    ("POST", "/v1/responses/input_tokens"): "InputTokens",
    ("GET", _ONE): "Response",
    ("DELETE", _ONE): "DeletedResponse",
    ("POST", f"{_ONE}/cancel"): "Response",
    ("GET", f"{_ONE}/input_items"): "ItemList",
}
EVENTS: dict[tuple[str, str], str] = {
    ("POST", "/v1/responses"): "ResponseEvent",
    ("GET", _ONE): "ResponseEvent",
}
_YES_NO: Schema = {"enum": ["true", "false"]}
QUERIES: dict[tuple[str, str], dict[str, Schema]] = {
    ("GET", _ONE): {
        "stream": {**_YES_NO, "description": "Tell its events again; only if it was streamed."},
        "starting_after": {**_COUNT, "description": "With stream: only events behind this one."},
        "include_obfuscation": {"const": "false", "description": "Nothing is obfuscated."},
    },
    ("GET", f"{_ONE}/input_items"): {
        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        "order": {"enum": ["asc", "desc"], "default": "desc"},
        "after": {"type": "string", "description": "Only items behind this one."},
    },
}
"""What an endpoint takes in its query"""
