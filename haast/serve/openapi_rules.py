"""What holds of several fields of a request together."""

from haast.serve.openapi_answers import Schema


def _given(name: str, value: Schema) -> Schema:
    return {"required": [name], "properties": {name: value}}


def _not_given(name: str) -> Schema:
    return {"properties": {name: {"type": "null"}}}


def _only_with(name: str, other: str) -> Schema:
    return {"anyOf": [_not_given(name), _given(other, {"const": True})]}


STREAM_RULE = _only_with("stream_options", "stream")
RULES: dict[str, Schema] = {
    "ChatBody": {
        "allOf": [
            STREAM_RULE,
            _only_with("top_logprobs", "logprobs"),
            {"anyOf": [_not_given("max_tokens"), _not_given("max_completion_tokens")]},
            {"anyOf": [_not_given("reasoning_effort"), _not_given("reasoning")]},
        ]
    },
    "CompletionBody": {
        "allOf": [
            STREAM_RULE,
            {"anyOf": [_not_given("logprobs"), {"properties": {"echo": {"enum": [False, None]}}}]},
        ]
    },
    "TokenizeBody": {
        "oneOf": [
            {**_given("prompt", {"type": "string"}), "not": _given("messages", {"type": "array"})},
            {**_given("messages", {"type": "array"}), "not": _given("prompt", {"type": "string"})},
        ]
    },
}
"""Model -> what holds of several of its fields together"""
