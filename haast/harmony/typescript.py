"""Function tools as the TypeScript text the models were trained on."""

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeGuard

from haast.harmony.messages import Tool

_SIMPLE = {"number": "number", "integer": "number", "boolean": "boolean"}
Schema = Mapping[str, Any]


def tools_section(tools: Sequence[Tool]) -> str:
    """The developer message's `# Tools` part, with every tool in namespace `functions`."""
    lines = ["# Tools", "", "## functions", "", "namespace functions {", ""]
    for tool in tools:
        lines += [f"// {line}" for line in _lines(tool.description)]
        lines += [f"type {tool.name} = ({_parameters(tool)}) => any;", ""]
    return "\n".join([*lines, "} // namespace functions"])


def type_text(schema: Any, indent: str = "") -> str:
    """The TypeScript type of a JSON schema; `any` for what has no counterpart.

    `indent` stands before every line but the first.
    """
    if not _is_schema(schema):
        return "any"
    if isinstance(schema.get("oneOf"), list):
        return _union(schema["oneOf"], indent)
    kind = schema.get("type")
    if isinstance(kind, list):
        names = ["number" if name == "integer" else name for name in kind if _is_text(name)]
        return " | ".join(names) or "any"
    if kind == "object":
        return _object(schema, indent)
    if kind == "array":
        return type_text(schema["items"], indent) + "[]" if "items" in schema else "Array<any>"
    if kind == "string":
        return " | ".join(f'"{value}"' for value in _enum(schema) if _is_text(value)) or "string"
    return _SIMPLE.get(kind, "any") if _is_text(kind) else "any"


def _parameters(tool: Tool) -> str:
    return "" if tool.parameters is None else f"_: {type_text(tool.parameters)}"


def _union(variants: list[Any], indent: str) -> str:
    lines = []
    for variant in variants:
        notes = _texts(variant, "description")
        if "default" in _fields(variant):
            value = variant["default"]
            quoted = f'"{value}"' if _is_text(value) and not _enum(variant) else _json(value)
            notes.append(f"default: {quoted}")
        lines.append(f"\n{indent} | {_nullable(variant, indent + '   ')}{_trailing(notes)}")
    return "".join(lines)


def _object(schema: Schema, indent: str) -> str:
    comment = "".join(f"{indent}// {text}\n" for text in _texts(schema, "description"))
    properties = _fields(schema.get("properties"))
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    body = "".join(
        _property(key if key in names else f"{key}?", value, indent)
        for key, value in properties.items()
    )
    return f"{comment}{{\n{body}{indent}}}"


def _property(name: str, schema: Any, indent: str) -> str:
    """One member of an object type, its comments above it. `name` carries the `?` if optional."""
    head = "".join(f"{indent}// {text}\n{indent}//\n" for text in _texts(schema, "title"))
    fields = _fields(schema)
    if "oneOf" not in fields:
        head += "".join(f"{indent}// {text}\n" for text in _texts(schema, "description"))
    head += "".join(f"{indent}// {line}\n" for line in _examples(fields))
    if isinstance(fields.get("oneOf"), list):
        return head + _union_property(name, fields, indent)
    notes = [] if "oneOf" in fields else _default(fields)
    return f"{head}{indent}{name}: {_nullable(schema, indent + '    ')},{_trailing(notes)}\n"


def _union_property(name: str, schema: Schema, indent: str) -> str:
    """A member whose type is a `oneOf`: a line per variant, without repeating its description."""
    variants = schema["oneOf"]
    above = _texts(schema, "description")
    if above and variants and _texts(variants[0], "description") == above:
        above = []
    comments = "".join(f"{indent}// {text}\n" for text in [*above, *_default(schema)])
    lines = []
    for index, variant in enumerate(variants):
        texts = [] if above and index == 0 else _texts(variant, "description")
        known = _texts(schema, "description")
        notes = [text for text in texts if text not in known] + _default(_fields(variant))
        lines.append(f"{indent} | {_nullable(variant, indent + '   ')}{_trailing(notes)}\n")
    return f"{comments}{indent}{name}:\n{''.join(lines)}{indent},\n"


def _nullable(schema: Any, indent: str) -> str:
    text = type_text(schema, indent)
    adds_null = _fields(schema).get("nullable") is True and "null" not in text
    return f"{text} | null" if adds_null else text


def _default(schema: Schema) -> list[str]:
    if "default" not in schema:
        return []
    value = schema["default"]
    if not _is_text(value):
        return [f"default: {_json(value)}"]
    return [f"default: {value}" if _enum(schema) else f'default: "{value}"']


def _examples(schema: Schema) -> list[str]:
    examples = schema.get("examples")
    if not isinstance(examples, list) or not examples:
        return []
    return ["Examples:", *(f'- "{value}"' for value in examples if _is_text(value))]


def _trailing(notes: list[str]) -> str:
    return f" // {' '.join(notes)}" if notes else ""


def _texts(schema: Any, key: str) -> list[str]:
    value = _fields(schema).get(key)
    return [value] if _is_text(value) else []


def _enum(schema: Schema) -> list[Any]:
    values = schema.get("enum")
    return values if isinstance(values, list) else []


def _fields(schema: Any) -> Schema:
    return schema if _is_schema(schema) else {}


def _is_schema(value: Any) -> TypeGuard[Schema]:
    return isinstance(value, Mapping)


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str)


def _lines(text: str) -> list[str]:
    lines = re.split(r"\r?\n", text)
    return lines[:-1] if lines[-1] == "" else lines


def _json(value: Any) -> str:
    """Compact JSON with numbers as Rust prints them: 1e-7 and 0.00001, not 1e-07 and 1e-05."""
    if _is_schema(value):
        return "{" + ",".join(f"{_json(key)}:{_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    if isinstance(value, float):
        return _float(value)
    return json.dumps(value, ensure_ascii=False)


def _float(value: float) -> str:
    mantissa, _, exponent = repr(value).partition("e")
    if not exponent:
        return mantissa
    return f"{Decimal(repr(value)):f}" if int(exponent) == -5 else f"{mantissa}e{int(exponent)}"
