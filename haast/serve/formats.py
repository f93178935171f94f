"""What a request says that the answer has to be: a JSON schema, a regex, choices or a grammar."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from haast.grammars import choice_piece, json_piece, lark_piece, regex_piece, why_invalid
from haast.harmony import ConversationError, ResponseFormat
from haast.harmony.chat import check_depth
from haast.harmony.grammar import Piece
from haast.serve.errors import invalid
from haast.serve.protocol import GenerationBody

_GUIDED = ("json", "regex", "choice", "grammar")
_KINDS = (*_GUIDED, "json_object")
_ANY_OBJECT = {"type": "object"}


@dataclass(frozen=True)
class Format:
    """What the answer has to be.

    field  of the request that says so
    told   what the model is told of it
    """

    field: str
    piece: Piece
    told: ResponseFormat


def asks_for_format(body: GenerationBody) -> bool:
    """Whether `format_of` has anything to look at, `given` aside."""
    guided = (getattr(body, f"guided_{kind}") for kind in _GUIDED)
    return any(
        given is not None for given in (body.response_format, body.structured_outputs, *guided)
    )


def format_of(
    body: GenerationBody, given: Mapping[str, Any] | None = None, field: str = ""
) -> Format | None:
    """The one format that a request asks for; a schema takes milliseconds to check.

    given, field  what the Responses API has in place of `response_format`, and its name
    Raises ApiError 400 naming the field.
    """
    given = body.response_format if given is None else given
    of_openai = _of_response_format(given, field or "response_format")
    found = [*of_openai, *_of_structured_outputs(body), *_of_guided(body)]
    if not found:
        return None
    if len(found) > 1:
        first, second = found[0].field, found[1].field
        raise invalid(second, f"{first} and {second} both say what the answer has to be")
    check_piece(found[0].field, found[0].piece)
    return found[0]


def check_piece(field: str, piece: Piece) -> None:
    """Raise ApiError 400 with what is wrong with the grammar that a field makes."""
    why = why_invalid(piece)
    if why is not None:
        raise invalid(field, f"{field}: {why}")


def check_flag(field: str, given: object) -> None:
    """Raise ApiError 400 if a field that may be given is neither true nor false."""
    if given is not None and not isinstance(given, bool):
        raise invalid(field, f"{field} must be true or false")


def schema_piece(field: str, schema: object, *, is_strict: bool) -> Piece:
    """JSON of the schema that a field gives. Raises ApiError 400 if it is no object."""
    if not isinstance(schema, Mapping):
        raise invalid(field, f"{field} must be a JSON schema: an object")
    try:
        check_depth(field, schema)
    except ConversationError as error:
        raise invalid(field, str(error)) from None
    return json_piece(schema, is_strict=is_strict)


def _of_response_format(given: Mapping[str, Any] | None, field: str) -> Iterator[Format]:
    if given is None or given.get("type") == "text":
        return
    if given.get("type") == "json_object":
        yield _made(field, "json_object", True)
    elif given.get("type") != "json_schema":
        kind, allowed = given.get("type"), "'text', 'json_object', 'json_schema'"
        raise invalid(f"{field}.type", f"{field}.type is {kind!r}; allowed: {allowed}")
    elif field == "response_format":
        yield _of_json_schema(f"{field}.json_schema", given.get("json_schema"))
    else:
        yield _of_json_schema(field, given)


def _of_json_schema(field: str, given: object) -> Format:
    if not isinstance(given, Mapping):
        raise invalid(field, f"{field} must be an object")
    name, description = given.get("name") or "response", given.get("description") or ""
    for key, value in (("name", name), ("description", description)):
        if not isinstance(value, str):
            raise invalid(f"{field}.{key}", f"{field}.{key} must be a string")
    check_flag(f"{field}.strict", given.get("strict"))
    schema = given.get("schema")
    piece = schema_piece(f"{field}.schema", schema, is_strict=given.get("strict") is True)
    return Format(f"{field}.schema", piece, ResponseFormat(name, _compact(schema), description))


def _of_structured_outputs(body: GenerationBody) -> Iterator[Format]:
    for key, value in (body.structured_outputs or {}).items():
        field = f"structured_outputs.{key}"
        if value is None or value is False:
            continue
        if key in _KINDS:
            yield _made(field, key, value)
        else:
            message = f"{field} is not supported; allowed: {', '.join(_KINDS)}"
            raise invalid(field, message, code="unsupported_parameter")


def _of_guided(body: GenerationBody) -> Iterator[Format]:
    for kind in _GUIDED:
        value = getattr(body, f"guided_{kind}")
        if value is not None:
            yield _made(f"guided_{kind}", kind, value)


def _made(field: str, kind: str, value: Any) -> Format:
    """One of vLLM's kinds of formats."""
    if kind == "json_object":
        check_flag(field, value)
        piece = json_piece(_ANY_OBJECT, is_strict=True)
        return Format(field, piece, ResponseFormat(kind, _compact(_ANY_OBJECT)))
    if kind == "json":
        schema = _parsed(field, value) if isinstance(value, str) else value
        piece = schema_piece(field, schema, is_strict=True)
        return Format(field, piece, ResponseFormat("response", _compact(schema)))
    if kind == "choice":
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise invalid(field, f"{field} must be a list of strings, not empty")
        told = ResponseFormat(kind, _compact(value), "One of these texts and nothing else.")
        return Format(field, choice_piece(value), told)
    if not isinstance(value, str) or not value:
        raise invalid(field, f"{field} must be a string, not empty")
    if kind == "regex":
        told = ResponseFormat(kind, value, "A text that matches this regular expression.")
        return Format(field, regex_piece(value), told)
    try:
        piece = lark_piece(value)
    except ValueError as error:
        raise invalid(field, f"{field}: {error}") from None
    return Format(field, piece, ResponseFormat(kind, value, "A text of this grammar."))


def _parsed(field: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(field, f"{field} is no JSON: {error}") from None


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
