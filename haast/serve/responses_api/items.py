"""Items of the `input` field, checked and written as the API shows them."""

import base64
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from haast.serve.errors import ApiError, invalid

Item = dict[str, Any]
Fields = Mapping[str, Any]
ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text")
_STATUSES = ("in_progress", "completed", "incomplete")
_PHASES = ("commentary", "final_answer")
_ENCODED = "haast-reasoning-1:"


def read_items(given: str | Sequence[Fields], find: Callable[[str], Item | None]) -> list[Item]:
    """A string is one user message. Every item has an id, its own or a new one.

    find    item id -> a stored item, None if there is none
    Raises ApiError: 400 naming the place that is wrong, 404 for a reference to nothing.
    """
    if isinstance(given, str):
        return [_message("input", {"role": "user", "content": given})]
    return [_read(f"input[{index}]", item, find) for index, item in enumerate(given)]


def encode_reasoning(text: str) -> str:
    """Reasoning for clients that keep it without reading it. It is no secret."""
    return _ENCODED + base64.b64encode(text.encode()).decode()


def text_of(content: str | Sequence[Fields]) -> str:
    """The texts of content parts, joined."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _read(where: str, item: Fields, find: Callable[[str], Item | None]) -> Item:
    kind = item.get("type")
    if kind is None:
        kind = "message" if "role" in item else "item_reference"
    if kind == "item_reference":
        return _referenced(where, item, find)
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        allowed = ", ".join([*_READERS, "item_reference"])
        raise invalid(f"{where}.type", f"{where}.type is {kind!r}; allowed: {allowed}")
    return read(where, item)


def _referenced(where: str, item: Fields, find: Callable[[str], Item | None]) -> Item:
    name = _string(f"{where}.id", item.get("id"))
    found = find(name)
    if found is None:
        message = f"Item with id {name!r} not found. Items of a response are only kept if it is"
        raise ApiError(404, f"{message} stored; remove this item from your input.", param="input")
    return found


def _message(where: str, item: Fields) -> Item:
    role = _one_of(f"{where}.role", item.get("role"), ROLES)
    read = {"id": _id(where, item, "msg"), "type": "message", "role": role}
    parts = _parts(f"{where}.content", item.get("content"))
    read["status"] = _status(where, item)
    if role != "assistant":
        return read | {"content": [{"type": "input_text", "text": text} for text in parts]}
    if item.get("phase") is not None:
        read["phase"] = _one_of(f"{where}.phase", item["phase"], _PHASES)
    return read | {"content": [output_text(text) for text in parts]}


def output_text(text: str, logprobs: Sequence[Any] = ()) -> Item:
    """A content part of what the model said."""
    shown = {"type": "output_text", "text": text, "annotations": []}
    return shown | {"logprobs": list(logprobs)}


def _reasoning(where: str, item: Fields) -> Item:
    summary = [
        {"type": "summary_text", "text": text}
        for text in _texts(f"{where}.summary", item.get("summary"), ("summary_text",))
    ]
    encoded, content = item.get("encrypted_content"), item.get("content")
    texts = _texts(f"{where}.content", content, ("reasoning_text", "text"))
    if encoded is not None and not texts:
        texts = [_decoded(f"{where}.encrypted_content", encoded)]
    read = {"id": _id(where, item, "rs"), "type": "reasoning", "summary": summary}
    read["content"] = [{"type": "reasoning_text", "text": text} for text in texts]
    return read | ({"encrypted_content": encoded} if encoded is not None else {})


def _decoded(where: str, encoded: object) -> str:
    text = _string(where, encoded)
    try:
        if text.startswith(_ENCODED):
            return base64.b64decode(text.removeprefix(_ENCODED), validate=True).decode()
    except ValueError:  # no base64, or no text in it
        pass
    raise invalid(where, f"{where} was not made by this server", "invalid_encrypted_content")


def _call(where: str, item: Fields) -> Item:
    read = {"id": _id(where, item, "fc"), "type": "function_call"}
    for name in ("call_id", "name", "arguments"):
        read[name] = _string(f"{where}.{name}", item.get(name))
    return read | {"status": _status(where, item)}


def _call_output(where: str, item: Fields) -> Item:
    read: Item = {"id": _id(where, item, "fco"), "type": "function_call_output"}
    read["call_id"] = _string(f"{where}.call_id", item.get("call_id"))
    output = item.get("output")
    if not isinstance(output, str):
        texts = _parts(f"{where}.output", output)
        output = [{"type": "input_text", "text": text} for text in texts]
    return read | {"output": output, "status": _status(where, item)}


_READERS: dict[str, Callable[[str, Fields], Item]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _call,
    "function_call_output": _call_output,
}


def _parts(where: str, content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise invalid(where, f"{where} is {_kind(content)}; allowed: a string or a list of parts")
    return _texts(where, content, _TEXTS)


def _texts(where: str, parts: object, kinds: Sequence[str]) -> list[str]:
    if parts is None:
        return []
    if not isinstance(parts, list):
        raise invalid(where, f"{where} is {_kind(parts)}; allowed: a list")
    texts = []
    for index, part in enumerate(parts):
        path = f"{where}[{index}]"
        if not isinstance(part, Mapping):
            raise invalid(path, f"{path} is {_kind(part)}; allowed: an object")
        _one_of(f"{path}.type", part.get("type"), kinds)
        texts.append(_string(f"{path}.text", part.get("text")))
    return texts


def _id(where: str, item: Fields, prefix: str) -> str:
    given = item.get("id")
    return item_id(prefix) if given is None else _string(f"{where}.id", given)


def item_id(prefix: str) -> str:
    """A new id, written as OpenAI does: `msg_...`"""
    return f"{prefix}_{secrets.token_hex(16)}"


def _status(where: str, item: Fields) -> str:
    status = item.get("status")
    return "completed" if status is None else _one_of(f"{where}.status", status, _STATUSES)


def _one_of(where: str, value: object, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise invalid(where, f"{where} is {value!r}; allowed: {', '.join(allowed)}")
    return value


def _string(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise invalid(where, f"{where} is {_kind(value)}; allowed: a string")
    return value


def _kind(value: object) -> str:
    return "missing" if value is None else f"of type {type(value).__name__}"
