"""The description of the API for programs: /openapi.json."""

import re
from collections.abc import Iterable
from typing import Any

from haast import __version__
from haast.serve.protocol import (
    Body,
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    TokenizeBody,
)
from haast.serve.responses_api.body import ResponseBody

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


def describe(endpoints: Iterable[tuple[str, str, str]]) -> dict[str, Any]:
    """An OpenAPI document.

    endpoints  (path, method, summary)
    """
    schemas: dict[str, Any] = {}
    for body in BODIES.values():
        schema = body.model_json_schema(ref_template=_REF)
        schemas |= schema.pop("$defs", {}) | {body.__name__: schema}
    paths: dict[str, dict[str, Any]] = {}
    for path, method, summary in endpoints:
        paths.setdefault(path, {})[method.lower()] = _operation(path, summary)
    return {
        "openapi": "3.1.0",
        "info": {"title": "haast", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(path: str, summary: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "the answer"}, "4XX": {"description": "error body"}},
    }
    if path in BODIES:
        schema = {"$ref": _REF.format(model=BODIES[path].__name__)}
        content = {"application/json": {"schema": schema}}
        operation["requestBody"] = {"required": True, "content": content}
    text = {"in": "path", "required": True, "schema": {"type": "string"}}
    if names := re.findall(r"{(\w+)}", path):
        operation["parameters"] = [{"name": name, **text} for name in names]
    return operation
