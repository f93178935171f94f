"""Which requests belong together: those whose prompts begin alike, and those of one response.

All that is needed is to send them to one replica, where the pages of that beginning are.
"""

import re
from hashlib import blake2b

import msgspec

HEADER = b"x-session-id"
"""A client's own word for what belongs together; Ray Serve's, too"""
_RESPONSE = re.compile(r"(?:^|/)resp_[0-9a-f]{32}([0-9a-f]{16})(?=$|/)")


class _Item(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw()


class _Body(msgspec.Struct):
    """The fields that tell; all others are passed over."""

    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    messages: list[_Item] = []
    input: list[_Item] | str = []
    instructions: str | None = None


_body = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode


def session_of(path: str, headers: dict[bytes, bytes], body: bytes) -> str:
    """16 hexadecimal digits that are the same for what belongs together; "" if nothing tells.

    In this order: the response that the path or `previous_response_id` names, which only one
    replica has; `prompt_cache_key`; the header; all up to the first message of the user.
    A body that is not as it should be tells nothing: whoever answers it says what is wrong.
    """
    if of_path := _of_response(path):
        return of_path
    try:
        told = _body(body)
        if of_body := _of_response(told.previous_response_id or ""):
            return of_body
        if told.prompt_cache_key:
            return _digest(told.prompt_cache_key.encode())
        if named := headers.get(HEADER):
            return _digest(named)
        return _digest(*_beginning(told))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _digest(headers.get(HEADER, b""))


def _of_response(text: str) -> str:
    """The session that a response's id ends with; see `haast.serve.responses_api.run.prepare`."""
    match = _RESPONSE.search(text)
    return match[1] if match else ""


def _beginning(told: _Body) -> list[bytes]:
    """What a conversation begins with and keeps: instructions, and items up to the first user's."""
    items = told.messages or told.input
    if isinstance(items, str):
        items = [_Item("user", msgspec.Raw(_encode(items)))]
    parts = [(told.instructions or "").encode()]
    for item in items:
        parts += item.role.encode(), bytes(item.content)
        if item.role == "user":
            return parts
    return []


def _digest(*parts: bytes) -> str:
    data = b"\0".join(parts)
    return blake2b(data, digest_size=8).hexdigest() if data else ""
