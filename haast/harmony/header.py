"""Reading the header of a generated message, well-formed or not.

A header arrives as parts: the text before any marker, then the text after each `<|channel|>`
and `<|constrain|>`. What cannot belong to a header is handed back as `rest`.
"""

import re
from dataclasses import dataclass, field
from enum import Enum, auto

_CHANNELS = (b"analysis", b"commentary", b"final")
_ROLES = (b"user", b"system", b"developer", b"tool")
_OPENERS = (b"assistant", b"to=", b"functions.", *_CHANNELS)
_NOBODY = frozenset({"assistant", "user"})
# Tools with a name of their own, outside any namespace.
_BUILT_IN = frozenset({"python", "browser"})

_ASSISTANT = re.compile(rb"\s*assistant")
_FOREIGN = re.compile(
    rb"\s*(?:(?:user|system|developer|tool)\b|functions\.\S|"
    rb"(?!assistant|analysis|commentary|final)\S+\s+to=assistant)"
)
_NAME = re.compile(rb"\s*(analysis|commentary|final)(?:[^\s\w{]+(?=\s|$))?", re.IGNORECASE)
_UNKNOWN_NAME = re.compile(rb"\s*\w[\w-]*(?=\s+to=|\s*$)")
_ITEM = re.compile(rb"\s*(?:to=\s*([^\s<{]+)|(functions\.[^\s<{]+))")
_TYPE = re.compile(rb"\s*(json|code)\b")
_WORD = re.compile(rb"\s*([A-Za-z][\w/+.-]*)")
_LAST_WORD = re.compile(rb"\s+([A-Za-z][\w/+.-]*)\s*")
# Channel words without `<|channel|>`: hidden analysis must not be missed, so it needs less proof.
_BARE = re.compile(
    rb"\s*(?:assistant)?\s*"
    rb"(?:(analysis)(?![a-z])|(commentary|final)(?=[^a-z\s]|\s+to=)|(?=to=|functions\.))"
)
_CUT = re.compile(rb"(?:assistant)?\s*(?:analysis|commentary|final)\s+(?:t|to)")
_CUT_TAIL = re.compile(rb"\s+[\w.=-]*")


class Origin(Enum):
    """What stood before a header; the prompt ends in `<|start|>assistant`."""

    PROMPT = auto()
    START = auto()
    END = auto()


class Marker(Enum):
    """What opened a part of a header."""

    NONE = auto()
    CHANNEL = auto()
    CONSTRAIN = auto()


@dataclass
class Header:
    """What the parts say; None where they do not.

    foreign  the message is by somebody else: a user or a tool the model made up
    rest     bytes after the header's last recognisable word
    """

    foreign: bool = False
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    rest: bytes = b""
    anomalies: list[str] = field(default_factory=list)


Part = tuple[Marker, bytearray]


def may_be_header(text: bytes, origin: Origin) -> bool:
    """Whether unmarked text can still turn out to be a header."""
    words = _OPENERS if origin is Origin.PROMPT else (*_OPENERS, *_ROLES)
    start = text.lstrip()
    return origin is Origin.START or any(
        word.startswith(start) or start.startswith(word) for word in words
    )


def is_cut(parts: list[Part], header: Header) -> bool:
    """Whether `header.rest` is a header word that generation broke off in."""
    if len(parts) > 1:
        return _CUT_TAIL.fullmatch(header.rest) is not None
    start = header.rest.strip()
    return _CUT.fullmatch(start) is not None or any(
        word.startswith(start) for word in (*_OPENERS, *_ROLES)
    )


def read_header(parts: list[Part], origin: Origin) -> Header:
    """Header of parts that a marker confirms to be one."""
    header = Header()
    has_channel = any(marker is Marker.CHANNEL for marker, _ in parts)
    for marker, text in parts:
        if has_text(header.rest):
            header.anomalies.append("header_junk")
        if marker is Marker.NONE:
            header.rest = _read_first(header, bytes(text), origin, has_channel)
        elif marker is Marker.CHANNEL:
            header.rest = _read_tail(header, _read_channel(header, bytes(text)))
        else:
            header.rest = _read_tail(header, _read_type(header, bytes(text), _WORD))
    return header


def read_bare(text: bytes, origin: Origin) -> Header:
    """Header of text that no marker confirms: mostly plain text, all of it `rest`."""
    header = Header()
    if origin is Origin.START:
        header.foreign = _FOREIGN.match(text) is not None
        text = _after(_ASSISTANT, text)
    if origin is not Origin.PROMPT and text.strip() in _CHANNELS:
        return header
    found = _BARE.match(text)
    if found is None:
        header.rest = text
        return header
    name = found[1] or found[2]
    header.channel = name.decode() if name else None
    header.rest = _read_tail(header, text[found.end() :])
    return header


def take_word(header: Header) -> None:
    """Read what is left before `<|message|>`: one word is a content type, the rest is junk."""
    left, header.rest = header.rest, b""
    found = _LAST_WORD.fullmatch(left)
    is_placed = header.channel is not None or header.recipient is not None
    if found and is_placed and header.content_type is None:
        header.content_type = _name(found[1])
    elif left.strip():
        header.anomalies.append("header_junk")


def has_text(rest: bytes) -> bool:
    """Whether left-over bytes are worth showing: a letter, a digit or anything beyond ASCII."""
    return any(byte >= 0x80 or chr(byte).isalnum() for byte in rest)


def _read_first(header: Header, text: bytes, origin: Origin, has_channel: bool) -> bytes:
    """Author and recipient; the channel too if its marker is missing."""
    header.foreign = origin is not Origin.PROMPT and _FOREIGN.match(text) is not None
    if header.foreign:
        return b""
    text = _read_items(header, _after(_ASSISTANT, text))
    if has_channel or not _NAME.match(text):
        return text
    header.anomalies.append("missing_channel")
    return _read_tail(header, _read_channel(header, text))


def _read_channel(header: Header, text: bytes) -> bytes:
    found = _NAME.match(text)
    if found is None:
        if header.channel is None and text.strip():
            header.anomalies.append("unknown_channel")
            header.channel = "analysis"
        return _after(_UNKNOWN_NAME, text)
    header.channel = _name(found[1]).lower()
    if found[0].strip() != found[1]:
        header.anomalies.append("header_junk")
    return text[found.end() :]


def _read_tail(header: Header, text: bytes) -> bytes:
    return _read_type(header, _read_items(header, text), _TYPE)


def _read_items(header: Header, text: bytes) -> bytes:
    """Take recipients off the front of `text`."""
    while found := _ITEM.match(text):
        text = text[found.end() :]
        name = _name(found[1] or found[2]).rstrip(".")
        if name == "all":
            continue
        if not name or name in _NOBODY:
            header.anomalies.append("no_tool_recipient")
        elif "." in name or name in _BUILT_IN:
            header.recipient = name
        else:
            header.anomalies.append("bare_recipient")
            header.recipient = f"functions.{name}"
    return text


def _read_type(header: Header, text: bytes, pattern: re.Pattern[bytes]) -> bytes:
    found = pattern.match(text)
    if found is None:
        return text
    header.content_type = _name(found[1])
    return text[found.end() :]


def _after(pattern: re.Pattern[bytes], text: bytes) -> bytes:
    found = pattern.match(text)
    return text[found.end() :] if found else text


def _name(raw: bytes) -> str:
    return raw.decode(errors="replace")
