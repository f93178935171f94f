"""The description of the API for programs: /openapi.json."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from haast import __version__
from haast.serve import openapi_response_answers, openapi_responses
from haast.serve.fields import HARMLESS, REFUSED_IN_CHAT, REFUSED_IN_COMPLETIONS
from haast.serve.middleware import OPEN_PATHS
from haast.serve.openapi_answers import ANSWERS, EVENTS, JSON
from haast.serve.openapi_fields import FIELDS, TOKEN_LIMITS
from haast.serve.openapi_messages import MESSAGES
from haast.serve.openapi_rules import RULES
from haast.serve.protocol import (
    Body,
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    GenerationBody,
    TokenizeBody,
)
from haast.serve.responses_api.body import ResponseBody

Schema = dict[str, Any]
_FIELDS = FIELDS | openapi_responses.FIELDS
_RULES = RULES | {"ResponseBody": openapi_responses.RULES}
_SCHEMAS = MESSAGES | ANSWERS | openapi_responses.SCHEMAS | openapi_response_answers.ANSWERS
_JSON = JSON | openapi_response_answers.JSON
_EVENTS = EVENTS | openapi_response_answers.EVENTS
_REF = "#/components/schemas/{model}"
BODIES: dict[str, type[Body]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/chat/completions/render": ChatBody,
    "/v1/completions": CompletionBody,
    "/v1/responses": ResponseBody,
    "/v1/responses/input_tokens": ResponseBody,
    "/tokenize": TokenizeBody,
    "/detokenize": DetokenizeBody,
}
"""Path -> what is posted to it"""
REFUSED: dict[type[Body], Mapping[str, tuple[Any, ...]]] = {
    ChatBody: REFUSED_IN_CHAT,
    CompletionBody: REFUSED_IN_COMPLETIONS,
    ResponseBody: openapi_responses.REFUSED,
    TokenizeBody: {"add_generation_prompt": (True,), "continue_final_message": (False,)},
}
"""Body -> fields that are known and not supported, and the values at which they ask for nothing"""
ERRORS = {
    "400": "A field is wrong, or cannot be honoured; `param` names it.",
    "401": "No API key, or a wrong one.",
    "404": "No such model, or nothing at this path.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "429": "Too many requests wait already.",
    "431": "The request line and the headers are too large.",
    "500": "An error of the server.",
    "503": "The engine is down, or the server busy or about to end.",
}
_RETRY = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}}
_HEADERS = {
    "401": {"WWW-Authenticate": {"schema": {"const": "Bearer"}}},
    "429": _RETRY,
    "503": _RETRY,
}


@dataclass(frozen=True)
class Facts:
    """What the description says of one server."""

    models: tuple[str, ...]
    vocab_size: int
    max_length: int
    has_keys: bool


def describe(endpoints: Iterable[tuple[str, str, str]], facts: Facts) -> dict[str, Any]:
    """An OpenAPI document.

    endpoints  (path, method, docstring)
    """
    schemas: dict[str, Any] = {}
    for body in BODIES.values():
        schemas |= body_schemas(body, facts)
    token_id = {"type": "integer", "minimum": 0, "maximum": facts.vocab_size - 1}
    schemas |= {"TokenId": token_id} | _SCHEMAS
    paths: dict[str, dict[str, Any]] = {}
    for path, method, text in endpoints:
        paths.setdefault(path, {})[method.lower()] = _operation(path, method, text, facts)
    components: dict[str, Any] = {"schemas": schemas, "responses": _error_responses()}
    if facts.has_keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "haast",
            "version": __version__,
            "description": "OpenAI's API, over a gpt-oss model. Null is as good as a field left "
            "out; fields that are not named here are accepted and ignored.",
        },
        "paths": paths,
        "components": components,
    }


def body_schemas(body: type[Body], facts: Facts) -> dict[str, Schema]:
    """Schemas of a body and of what it refers to, by name."""
    whole = body.model_json_schema(ref_template=_REF)
    found: dict[str, Schema] = whole.pop("$defs", {}) | {body.__name__: whole}
    for name, schema in found.items():
        required = schema.get("required", [])
        fields = schema.get("properties", {})
        for field, kind in fields.items():
            note = _for_server(field, _note(name, field), facts)
            fields[field] = _field(kind, note, field in required)
        schema.pop("title", None)
        schema |= _RULES.get(name, {})
    own = whole["properties"]
    for field, allowed in REFUSED.get(body, {}).items():
        own.setdefault(field, _refused(_note(body.__name__, field), allowed))
    if issubclass(body, GenerationBody):
        ignored = {"description": "Accepted; changes nothing."}
        own |= dict.fromkeys(sorted(HARMLESS - own.keys()), ignored)
    return found


def _note(model: str, field: str) -> Schema:
    return _FIELDS.get(f"{model}.{field}", _FIELDS.get(field, {}))


def _for_server(field: str, note: Schema, facts: Facts) -> Schema:
    """A field's note with what depends on the server that runs."""
    if field == "model":
        return note | {"enum": list(facts.models)}
    return note | {"maximum": facts.max_length - 1} if field in TOKEN_LIMITS else note


def _field(kind: Schema, note: Schema, is_required: bool) -> Schema:
    """A property: what pydantic says of its type, narrowed and explained by its note."""
    kinds = [one for one in kind.get("anyOf", [kind]) if one != {"type": "null"}]
    is_nullable = not is_required
    words = {key: note[key] for key in ("description", "default", "examples") if key in note}
    rest = {key: value for key, value in note.items() if key not in words}
    if "enum" in rest:
        return words | {"enum": [*rest["enum"], *([None] * is_nullable)]}
    if "anyOf" not in rest and len(kinds) > 1:
        rest["anyOf"] = kinds
    if "anyOf" in rest:
        return words | {"anyOf": [*rest["anyOf"], *([{"type": "null"}] * is_nullable)]}
    schema = {key: value for key, value in kinds[0].items() if key not in ("title", "default")}
    if "$ref" in schema:
        return words | ({"anyOf": [schema, {"type": "null"}]} if is_nullable else schema)
    return words | schema | rest | ({"type": [schema["type"], "null"]} if is_nullable else {})


def _refused(note: Schema, allowed: tuple[Any, ...]) -> Schema:
    """A property that may only say what holds anyway."""
    values: list[Any] = [None]
    for value in allowed:
        values += [value] * (value not in values)  # 1 and 1.0 are one number to a schema
    about = note.get("description", "").removeprefix("Not supported. ")
    return {"description": f"Not supported. {about}".strip(), "enum": values}


def _operation(path: str, method: str, text: str, facts: Facts) -> dict[str, Any]:
    summary, _, rest = text.partition("\n")
    name = re.sub(r"\W+", "_", path).strip("_") or "root"
    operation: dict[str, Any] = {
        "operationId": f"{method.lower()}_{name}",
        "summary": summary,
        "responses": _responses(path, method, facts),
    }
    if rest.strip():
        operation["description"] = " ".join(rest.split())
    if path in BODIES and method == "POST":
        schema = {"$ref": _REF.format(model=BODIES[path].__name__)}
        content = {"application/json": {"schema": schema}}
        operation["requestBody"] = {"required": True, "content": content}
    if parameters := _parameters(path, method):
        operation["parameters"] = parameters
    if facts.has_keys and path not in OPEN_PATHS:
        operation["security"] = [{"key": []}]
    return operation


def _parameters(path: str, method: str) -> list[Schema]:
    text = {"in": "path", "required": True, "schema": {"type": "string"}}
    queries = openapi_response_answers.QUERIES.get((method, path), {})
    return [
        *({"name": name, **text} for name in re.findall(r"{(\w+)}", path)),
        *({"name": name, "in": "query", "schema": schema} for name, schema in queries.items()),
    ]


def _responses(path: str, method: str, facts: Facts) -> dict[str, Any]:
    key = (method, path)
    kind = {"$ref": _REF.format(model=_JSON[key])} if key in _JSON else {"type": "object"}
    content: dict[str, Any] = {"application/json": {"schema": kind}}
    if path == "/metrics":
        content = {"text/plain": {"schema": {"type": "string"}}}
    if key in _EVENTS:
        content["text/event-stream"] = {"schema": _event(_EVENTS[key])}
    answers: dict[str, Any] = {"200": {"description": "The answer.", "content": content}}
    possible = {"431", "500", "503"} | (
        {"401"} if facts.has_keys and path not in OPEN_PATHS else set()
    )
    possible |= {"400", "404", "408", "413", "415", "429"} if method == "POST" else set()
    possible |= {"400", "404"} if "{" in path else set()
    return answers | {
        status: {"$ref": f"#/components/responses/{status}"} for status in sorted(possible)
    }


def _event(name: str) -> Schema:
    """One event of a stream."""
    document = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": _REF.format(model=name)},
    }
    return {
        "type": "object",
        "description": "A server-sent event.",
        "required": ["data"],
        "properties": {"data": {"anyOf": [document, {"const": "[DONE]"}]}},
    }


def _error_responses() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}
    return {
        status: {"description": text, "content": content, "headers": _HEADERS.get(status, {})}
        for status, text in ERRORS.items()
    }
