"""Schemas of what the server answers."""

from typing import Any

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_LOGPROB: Schema = {"type": "number"}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _object(about: str, optional: Schema | None = None, **fields: Schema) -> Schema:
    """An object that has all of `fields`, perhaps `optional` ones, and no other."""
    return {
        "type": "object",
        "description": about,
        "required": list(fields),
        "properties": fields | (optional or {}),
        "additionalProperties": False,
    }


def _reasons(*names: str | None) -> Schema:
    return {"enum": [*names, None], "description": "Why the answer ended; null: it has not."}


_HEAD = {"id": _TEXT, "created": {"type": "integer"}, "model": _TEXT}
_REASONING = {"reasoning": _TEXT, "reasoning_content": _TEXT}
_TOKEN = {"token": _TEXT, "logprob": _LOGPROB, "bytes": _list({"type": "integer"})}
_CALL = {"id": _TEXT, "type": {"const": "function"}}
_CHAT_REASONS = _reasons("stop", "length", "tool_calls")
_TEXT_REASONS = _reasons("stop", "length")
_MAYBE_USAGE = {"usage": _or_null(_ref("Usage"))}

ANSWERS: dict[str, Schema] = {
    "ChatCompletion": _object(
        "A whole answer to a chat.",
        **_HEAD,
        object={"const": "chat.completion"},
        choices=_list(_ref("ChatChoice")),
        usage=_ref("Usage"),
    ),
    "ChatChoice": _object(
        "One of the answers.",
        index=_COUNT,
        message=_ref("AnswerMessage"),
        logprobs=_or_null(_ref("ChatLogprobs")),
        finish_reason=_CHAT_REASONS,
    ),
    "AnswerMessage": _object(
        "What the model says, thinks and calls.",
        {**_REASONING, "tool_calls": _list(_ref("AnswerToolCall"))},
        role={"const": "assistant"},
        content=_or_null(_TEXT),
        refusal={"type": "null"},
    ),
    "AnswerToolCall": _object(
        "A function that the model wants called.",
        **_CALL,
        function=_object("Arguments are JSON text.", name=_TEXT, arguments=_TEXT),
    ),
    "ChatCompletionChunk": _object(
        "An event of a streamed chat. The one with the usage, if asked for, has no choices.",
        _MAYBE_USAGE,
        **_HEAD,
        object={"const": "chat.completion.chunk"},
        choices=_list(_ref("ChatChunkChoice")),
    ),
    "ChatChunkChoice": _object(
        "What an answer gains.",
        index=_COUNT,
        delta=_ref("ChatDelta"),
        logprobs=_or_null(_ref("ChatLogprobs")),
        finish_reason=_CHAT_REASONS,
    ),
    "ChatDelta": {
        "type": "object",
        "description": "Pieces of texts, to be appended.",
        "properties": {
            "role": {"const": "assistant"},
            "content": _TEXT,
            **_REASONING,
            "tool_calls": _list(_ref("ToolCallDelta")),
        },
        "additionalProperties": False,
    },
    "ToolCallDelta": _object(
        "A call begins with its id and name; arguments follow.",
        _CALL,
        index=_COUNT,
        function={"type": "object", "properties": {"name": _TEXT, "arguments": _TEXT}},
    ),
    "ChatLogprobs": _object(
        "Of the content's tokens.",
        content=_list(_ref("TokenLogprob")),
        refusal={"type": "null"},
    ),
    "TokenLogprob": _object(
        "A token and the likeliest ones in its place.",
        **_TOKEN,
        top_logprobs=_list(_object("One of the likeliest.", **_TOKEN)),
    ),
    "Completion": _object(
        "Whole answers to prompts.",
        **_HEAD,
        object={"const": "text_completion"},
        choices=_list(_ref("CompletionChoice")),
        usage=_ref("Usage"),
    ),
    "CompletionChunk": _object(
        "An event of a streamed completion. The one with the usage, if asked for, has no choices.",
        _MAYBE_USAGE,
        **_HEAD,
        object={"const": "text_completion"},
        choices=_list(_ref("CompletionChoice")),
    ),
    "CompletionChoice": _object(
        "An answer, or what it gains. Answer j to prompt i has the index i * n + j.",
        index=_COUNT,
        text=_TEXT,
        logprobs=_or_null(_ref("CompletionLogprobs")),
        finish_reason=_TEXT_REASONS,
    ),
    "CompletionLogprobs": _object(
        "Of the tokens, in order.",
        tokens=_list(_TEXT),
        token_logprobs=_list(_LOGPROB),
        top_logprobs=_list({"type": "object", "additionalProperties": _LOGPROB}),
        text_offset=_list(_COUNT),
    ),
    "Usage": _object(
        "Tokens, special ones included.",
        prompt_tokens=_COUNT,
        completion_tokens=_COUNT,
        total_tokens=_COUNT,
        prompt_tokens_details=_object("Found in the cache.", cached_tokens=_COUNT),
        completion_tokens_details=_object("Of the analysis channel.", reasoning_tokens=_COUNT),
    ),
    "RenderedChat": _object(
        "The prompt that a chat makes.",
        model=_TEXT,
        prompt_token_ids=_list(_ref("TokenId")),
        prompt=_TEXT,
        count=_COUNT,
        max_model_len=_COUNT,
    ),
    "ModelList": _object(
        "All names of the model.", object={"const": "list"}, data=_list(_ref("Model"))
    ),
    "Model": _object(
        "The model under one of its names.",
        id=_TEXT,
        object={"const": "model"},
        created={"type": "integer"},
        owned_by=_TEXT,
        root={"type": "string", "description": "Where its weights are."},
        max_model_len={**_COUNT, "description": "Tokens of prompt and answer together."},
    ),
    "Tokens": _object(
        "Token ids of a text or chat.",
        {"token_strs": _list(_TEXT)},
        count=_COUNT,
        max_model_len=_COUNT,
        tokens=_list(_ref("TokenId")),
    ),
    "Text": _object("The text of token ids.", prompt=_TEXT),
    "Status": _object("All is well.", status={"const": "ok"}),
    "Version": _object("Of haast.", version=_TEXT),
    "Error": _object(
        "What went wrong.",
        error=_object(
            "In OpenAI's form.",
            message={"type": "string", "description": "One line for people."},
            type={"type": "string", "description": "The kind of error."},
            param={"type": ["string", "null"], "description": "The field that is wrong."},
            code={"type": ["string", "integer", "null"], "description": "A name for programs."},
        ),
    ),
}
"""Name -> schema"""
JSON: dict[tuple[str, str], str] = {
    ("POST", "/v1/chat/completions"): "ChatCompletion",
    ("POST", "/v1/chat/completions/render"): "RenderedChat",
    ("POST", "/v1/completions"): "Completion",
    ("GET", "/v1/models"): "ModelList",
    ("GET", "/v1/models/{name}"): "Model",
    ("POST", "/tokenize"): "Tokens",
    ("POST", "/detokenize"): "Text",
    ("GET", "/health"): "Status",
    ("GET", "/ping"): "Status",
    ("GET", "/version"): "Version",
}
"""What an endpoint answers in one piece"""
EVENTS: dict[tuple[str, str], str] = {
    ("POST", "/v1/chat/completions"): "ChatCompletionChunk",
    ("POST", "/v1/completions"): "CompletionChunk",
}
"""What each event of its stream holds"""
