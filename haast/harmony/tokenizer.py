"""Text to token ids and back. Text never becomes a special token."""

import lzma
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import tokenizers

from haast.errors import HaastError


class TokenizerError(HaastError):
    """A tokenizer file that is missing, broken or not a harmony vocabulary."""


@dataclass(frozen=True)
class SpecialIds:
    """Token ids of the harmony markers, as this vocabulary numbers them."""

    start: int
    end: int
    message: int
    channel: int
    constrain: int
    call: int
    return_: int
    endoftext: int


_MARKERS = {field.name: f"<|{field.name.rstrip('_')}|>" for field in fields(SpecialIds)}


class Tokenizer:
    """Byte-level BPE vocabulary of a `tokenizer.json` or `tokenizer.json.xz`.

    special       SpecialIds, looked up by name
    special_text  literal text of every special id of the file, reserved ones included
    special_ids   the same ids as a set
    stop_ids      ids that end generation; fixed by the format, not by generation_config.json
    vocab_size    highest id + 1
    Raises TokenizerError when the file is missing, broken or lacks a harmony marker.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._inner = _load(self.path)
        self.special = SpecialIds(**{name: self._require(text) for name, text in _MARKERS.items()})
        self.special_text = self._special_texts()
        self.special_ids = frozenset(self.special_text)
        self._bytes = {token_id: text.encode() for token_id, text in self.special_text.items()}
        self.stop_ids = frozenset({self.special.return_, self.special.call, self.special.endoftext})
        self._refuse_reachable_specials()

    @cached_property
    def vocab_size(self) -> int:
        return max(self._inner.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; text that spells a special token stays text.

        A lone surrogate, which JSON can carry and UTF-8 cannot, becomes U+FFFD.
        """
        try:
            return self._inner.encode(text, add_special_tokens=False).ids
        except TypeError:
            repaired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return self._inner.encode(repaired, add_special_tokens=False).ids

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of one token: a special one gives its literal text, an unknown id b""."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._look_up(token_id)
            if known:
                self._bytes[token_id] = known
        return known

    def _look_up(self, token_id: int) -> bytes:
        if not 0 <= token_id < 1 << 32:
            return b""
        token = self._inner.id_to_token(token_id)
        if token is None:
            return b""
        if all(char in _BYTE_OF for char in token):
            return bytes(_BYTE_OF[char] for char in token)
        return token.encode()

    def decode(self, ids: list[int]) -> str:
        """Text of the ids, markers spelled out; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def _special_texts(self) -> dict[int, str]:
        added = self._inner.get_added_tokens_decoder()
        reserved = {i: token.content for i, token in added.items() if token.special}
        return {getattr(self.special, name): text for name, text in _MARKERS.items()} | reserved

    def _require(self, marker: str) -> int:
        token_id: int | None = self._inner.token_to_id(marker)
        if token_id is None:
            raise TokenizerError(f"{self.path} has no token {marker}, which harmony chats need")
        return token_id

    def _refuse_reachable_specials(self) -> None:
        """A file can list a marker as an ordinary word; user text could then forge it."""
        for marker in self.special_text.values():
            if not self.special_ids.isdisjoint(self.encode(marker)):
                raise TokenizerError(
                    f"{self.path} must mark {marker} as special: plain text would become that token"
                )


def _load(path: Path) -> tokenizers.Tokenizer:
    try:
        raw = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        inner = tokenizers.Tokenizer.from_buffer(raw)
    except FileNotFoundError:
        raise TokenizerError(f"no tokenizer file {path}") from None
    except (OSError, lzma.LZMAError, ValueError) as error:
        raise TokenizerError(f"cannot read tokenizer {path}: {error}") from None
    inner.encode_special_tokens = True
    inner.no_truncation()
    inner.no_padding()
    return inner


def _byte_alphabet() -> dict[str, int]:
    """Character -> byte of GPT-2's printable alphabet: bytes that print stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
