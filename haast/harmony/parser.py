"""Generated tokens to text deltas, whatever the model writes."""

from collections import Counter

from haast.harmony.delta import Delta, TextDecoder
from haast.harmony.header import (
    Header,
    Marker,
    Origin,
    Part,
    has_text,
    is_cut,
    may_be_header,
    read_bare,
    read_header,
    take_word,
)
from haast.harmony.tokenizer import Tokenizer

# Longest header kept back, in tokens. A 64-character tool name takes about 25.
_MAX_HEADER = 64
_OPENING = {"channel": Marker.CHANNEL, "constrain": Marker.CONSTRAIN}
_STOPS = frozenset({"call", "return_", "endoftext"})


class HarmonyParser:
    """State machine over the tokens that follow the prompt's `<|start|>assistant`.

    Accepts any sequence of integers, in constant time each. No marker and no header ever
    comes out as text; text is whole UTF-8 characters, invalid bytes are U+FFFD.

    Text without a header goes
    - to final at the very beginning: the model does not speak harmony, this is its answer;
    - to final after `<|start|>assistant`, with or without `<|message|>`;
    - after `<|end|>`, on with the message that ended, so that thoughts stay hidden
      (after a tool call: to analysis).
    A message on a channel of another name is analysis. A message by anyone but the assistant
    is dropped. Nothing is read after `<|call|>`, `<|return|>` or `<|endoftext|>`.

    anomalies  how often the model left the format, by kind: missing_start, missing_end,
               missing_message, missing_channel, double_start, double_channel, no_channel,
               no_header, header_junk, unknown_channel, bare_recipient, no_tool_recipient,
               foreign_message, stray_marker, special_token, unknown_token, cut_header, after_stop
    spilled    bytes that earlier calls took for a header and the last one gave as text, of the
               first message that it told of
    unsaid     whether the last call took the token before it, held back as text, for a header
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.anomalies: Counter[str] = Counter()
        self.spilled, self.unsaid = 0, False
        self._tokenizer = tokenizer
        self._markers = {token_id: name for name, token_id in vars(tokenizer.special).items()}
        self._index = -1
        self._message: Header | None = None
        self._previous: Header | None = None
        self._done = False
        self._begin_header(Origin.PROMPT)

    def feed(self, token_id: int) -> list[Delta]:
        """What one more token adds; often nothing. The stop token belongs to the stream."""
        self.spilled, self.unsaid = 0, False
        if self._done:
            self.anomalies["after_stop"] += 1
            return []
        marker = self._markers.get(token_id)
        if marker is not None:
            return self._on_marker(marker)
        data = self._tokenizer.token_bytes(token_id)
        if not data or token_id in self._tokenizer.special_ids:
            self.anomalies["special_token" if data else "unknown_token"] += 1
            return []
        if self._message is None:
            return self._on_header_text(data)
        return self._emit(self._text.add(data))

    def finish(self) -> list[Delta]:
        """What is still held back; to be called when generation has ended."""
        self.spilled, self.unsaid = 0, False
        if self._done:
            return []
        self._done = True
        if self._message is None and self._has_header():
            self.anomalies["cut_header"] += 1
        return self._close("finish")

    def _on_marker(self, marker: str) -> list[Delta]:
        if marker in _OPENING:
            return self._on_part(_OPENING[marker])
        if marker == "message":
            return self._on_message()
        self._count_ending(marker)
        deltas = self._close(marker)
        self._done = marker in _STOPS
        self._begin_header(Origin.START if marker == "start" else Origin.END)
        return deltas

    def _count_ending(self, marker: str) -> None:
        """A `<|start|>` belongs after an end, every other ending behind an open message."""
        if self._message is not None:
            if marker == "start":
                self.anomalies["missing_end"] += 1
        elif self._has_header():
            self.anomalies["missing_message"] += 1
        elif self._origin is not Origin.END:
            self.anomalies["double_start" if marker == "start" else "missing_message"] += 1

    def _on_part(self, marker: Marker) -> list[Delta]:
        """A `<|channel|>` or `<|constrain|>`."""
        deltas: list[Delta] = []
        if self._message is not None:
            if marker is Marker.CONSTRAIN:
                self.anomalies["stray_marker"] += 1
                return []
            self.anomalies["missing_end"] += 1
            self.unsaid = self._text.drop_held()
            deltas = self._close("channel")
            self._begin_header(Origin.START)
        elif marker is Marker.CHANNEL and self._has_part(Marker.CHANNEL):
            self.anomalies["double_channel"] += 1
            deltas = self._close("channel")
            if deltas:
                self._begin_header(Origin.START)
        self._count_missing_start()
        if len(self._parts) > 1 and not self._parts[-1][1]:
            self._parts.pop()  # said nothing; a model stuck on markers must not pile them up
        self._parts.append((marker, bytearray()))
        return deltas

    def _on_message(self) -> list[Delta]:
        if self._message is not None:
            self.anomalies["stray_marker"] += 1
            return []
        self._count_missing_start()
        header = read_header(self._parts, self._origin)
        take_word(header)
        if header.channel is None and not header.foreign:
            self.anomalies["no_channel"] += 1
            header.channel = "final" if header.recipient is None else "commentary"
        return self._open(header)

    def _on_header_text(self, data: bytes) -> list[Delta]:
        self._count_missing_start()
        self._parts[-1][1].extend(data)
        self._header_tokens += 1
        is_bare = len(self._parts) == 1
        if self._header_tokens < _MAX_HEADER and (
            not is_bare or may_be_header(bytes(self._parts[0][1]), self._origin)
        ):
            return []
        if not is_bare:
            self.anomalies["missing_message"] += 1
        return self._spill(self._read_unfinished())

    def _close(self, marker: str) -> list[Delta]:
        """End the open message, or the one that text in an unfinished header makes."""
        deltas: list[Delta] = []
        if self._message is None and self._has_header():
            header = self._read_unfinished()
            is_call = marker == "call" and header.recipient is not None
            is_cut_off = marker == "finish" and is_cut(self._parts, header)
            if is_call or (has_text(header.rest) and not is_cut_off):
                deltas = self._spill(header)
        if self._message is None:
            return deltas
        deltas += self._emit(self._text.flush(), end=True)
        if not self._message.foreign:
            self._previous = self._message
        self._message = None
        return deltas

    def _read_unfinished(self) -> Header:
        if len(self._parts) == 1:
            return read_bare(bytes(self._parts[0][1]), self._origin)
        return read_header(self._parts, self._origin)

    def _spill(self, header: Header) -> list[Delta]:
        """Open a message that has no `<|message|>`; what its header could not use is its text."""
        if header.channel is None:
            self.anomalies["no_header"] += 1
            header.channel = self._implied_channel(header)
        self.spilled = len(header.rest)
        return self._open(header) + self._emit(self._text.add(header.rest))

    def _implied_channel(self, header: Header) -> str:
        if header.recipient is not None:
            return "commentary"
        if self._origin is not Origin.END or self._previous is None:
            return "final"
        is_call = self._previous.recipient is not None
        return "analysis" if is_call else self._previous.channel or "final"

    def _open(self, header: Header) -> list[Delta]:
        self.anomalies.update(header.anomalies)
        self._message = header
        self._text = TextDecoder()
        if header.foreign:
            self.anomalies["foreign_message"] += 1
            return []
        self._index += 1
        return [self._delta(header, "")]

    def _emit(self, text: str, end: bool = False) -> list[Delta]:
        header = self._message
        if header is None or header.foreign or not (text or end):
            return []
        return [self._delta(header, text, end)]

    def _delta(self, header: Header, text: str, end: bool = False) -> Delta:
        channel = header.channel or "final"
        return Delta(channel, header.recipient, header.content_type, text, self._index, end)

    def _begin_header(self, origin: Origin) -> None:
        self._origin = origin
        self._parts: list[Part] = [(Marker.NONE, bytearray())]
        self._header_tokens = 0

    def _has_header(self) -> bool:
        return len(self._parts) > 1 or bool(self._parts[0][1].strip())

    def _has_part(self, marker: Marker) -> bool:
        return any(part[0] is marker for part in self._parts)

    def _count_missing_start(self) -> None:
        if self._origin is Origin.END and len(self._parts) == 1 and not self._parts[0][1]:
            self.anomalies["missing_start"] += 1
