"""Schemas of what the server answers."""

from typing import Any

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_LOGPROB: Schema = {"type": "number"}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def a_list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def an_object(about: str, optional: Schema | None = None, **fields: Schema) -> Schema:
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
_TOKEN = {"token": _TEXT, "logprob": _LOGPROB, "bytes": a_list({"type": "integer"})}
_CALL = {"id": _TEXT, "type": {"const": "function"}}
_CHAT_REASONS = _reasons("stop", "length", "tool_calls")
_TEXT_REASONS = _reasons("stop", "length")
_MAYBE_USAGE = {"usage": or_null(ref("Usage"))}

ANSWERS: dict[str, Schema] = {
    "ChatCompletion": an_object(
        "A whole answer to a chat.",
        **_HEAD,
        object={"const": "chat.completion"},
        choices=a_list(ref("ChatChoice")),
        usage=ref("Usage"),
    ),
    "ChatChoice": an_object(
        "One of the answers.",
        index=_COUNT,
        message=ref("AnswerMessage"),
        logprobs=or_null(ref("ChatLogprobs")),
        finish_reason=_CHAT_REASONS,
    ),
    "AnswerMessage": an_object(
        "What the model says, thinks and calls.",
        {**_REASONING, "tool_calls": a_list(ref("AnswerToolCall"))},
        role={"const": "assistant"},
        content=or_null(_TEXT),
        refusal={"type": "null"},
    ),
    "AnswerToolCall": an_object(
        "A function that the model wants called.",
        **_CALL,
        function=an_object("Arguments are JSON text.", name=_TEXT, arguments=_TEXT),
    ),
    "ChatCompletionChunk": an_object(
        "An event of a streamed chat. The one with the usage, if asked for, has no choices.",
        _MAYBE_USAGE,
        **_HEAD,
        object={"const": "chat.completion.chunk"},
        choices=a_list(ref("ChatChunkChoice")),
    ),
    "ChatChunkChoice": an_object(
        "What an answer gains.",
        index=_COUNT,
        delta=ref("ChatDelta"),
        logprobs=or_null(ref("ChatLogprobs")),
        finish_reason=_CHAT_REASONS,
    ),
    "ChatDelta": {
        "type": "object",
        "description": "Pieces of texts, to be appended.",
        "properties": {
            "role": {"const": "assistant"},
            "content": _TEXT,
            **_REASONING,
            "tool_calls": a_list(ref("ToolCallDelta")),
        },
        "additionalProperties": False,
    },
    "ToolCallDelta": an_object(
        "A call begins with its id and name; arguments follow.",
        _CALL,
        index=_COUNT,
        function={"type": "object", "properties": {"name": _TEXT, "arguments": _TEXT}},
    ),
    "ChatLogprobs": an_object(
        "Of the content's tokens.",
        content=a_list(ref("TokenLogprob")),
        refusal={"type": "null"},
    ),
    "TokenLogprob": an_object(
        "A token and the likeliest ones in its place.",
        **_TOKEN,
        top_logprobs=a_list(an_object("One of the likeliest.", **_TOKEN)),
    ),
    "Completion": an_object(
        "Whole answers to prompts.",
        **_HEAD,
        object={"const": "text_completion"},
        choices=a_list(ref("CompletionChoice")),
        usage=ref("Usage"),
    ),
    "CompletionChunk": an_object(
        "An event of a streamed completion. The one with the usage, if asked for, has no choices.",
        _MAYBE_USAGE,
        **_HEAD,
        object={"const": "text_completion"},
        choices=a_list(ref("CompletionChoice")),
    ),
    "CompletionChoice": an_object(
        "An answer, or what it gains. Answer j to prompt i has the index i * n + j.",
        index=_COUNT,
        text=_TEXT,
        logprobs=or_null(ref("CompletionLogprobs")),
        finish_reason=_TEXT_REASONS,
    ),
    "CompletionLogprobs": an_object(
        "Of the tokens, in order.",
        tokens=a_list(_TEXT),
        token_logprobs=a_list(_LOGPROB),
        top_logprobs=a_list({"type": "object", "additionalProperties": _LOGPROB}),
        text_offset=a_list(_COUNT),
    ),
    "Usage": an_object(
        "Tokens, special ones included.",
        prompt_tokens=_COUNT,
        completion_tokens=_COUNT,
        total_tokens=_COUNT,
        prompt_tokens_details=an_object("Found in the cache.", cached_tokens=_COUNT),
        completion_tokens_details=an_object("Of the analysis channel.", reasoning_tokens=_COUNT),
    ),
    "RenderedChat": an_object(
        "The prompt that a chat makes.",
        model=_TEXT,
        prompt_token_ids=a_list(ref("TokenId")),
        prompt=_TEXT,
        count=_COUNT,
        max_model_len=_COUNT,
    ),
    "ModelList": an_object(
        "All names of the model.", object={"const": "list"}, data=a_list(ref("Model"))
    ),
    "Model": an_object(
        "The model under one of its names.",
        id=_TEXT,
        object={"const": "model"},
        created={"type": "integer"},
        owned_by=_TEXT,
        root={"type": "string", "description": "Where its weights are."},
        max_model_len={**_COUNT, "description": "Tokens of prompt and answer together."},
    ),
    "Tokens": an_object(
        "Token ids of a text or chat.",
        {"token_strs": a_list(_TEXT)},
        count=_COUNT,
        max_model_len=_COUNT,
        tokens=a_list(ref("TokenId")),
    ),
    "Text": an_object("The text of token ids.", prompt=_TEXT),
    "Status": an_object("All is well.", status={"const": "ok"}),
    "Version": an_object("Of haast.", version=_TEXT),
    "Error": an_object(
        "What went wrong.",
        error=an_object(
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
