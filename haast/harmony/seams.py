"""Keeps text that was given apart from markers that a template writes."""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from haast.harmony.messages import ConversationError


class Seams:
    """A character put into given text wherever a special token could begin or end.

    It is one private-use character that occurs nowhere else, so no template operation can split
    or fold it, and erasing it afterwards restores the text exactly. Only a template that writes
    a marker around a given word, as in `<|{{ role }}|>`, still makes that marker: it means to.
    Raises ConversationError if `given` is nested too deeply or leaves no character free.
    """

    def __init__(self, given: Mapping[str, Any], source: str, specials: Iterable[str]) -> None:
        try:
            used = set(source).union(*_strings(given))
        except RecursionError:
            raise ConversationError("messages or tools are nested too deeply") from None
        free = (char for char in map(chr, range(0xE000, 0x110000)) if char not in used)
        self._char = next(free, "")
        if not self._char:
            raise ConversationError("messages use every private-use character of Unicode")
        self._places = _places(specials)

    def mark(self, given: dict[str, Any]) -> dict[str, Any]:
        """A copy of `given` with seams in all its strings, keys included."""
        marked: dict[str, Any] = self._mark(given)
        return marked

    def erase(self, text: str) -> str:
        """`text` without seams."""
        return text.replace(self._char, "")

    def _mark(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._places.sub(lambda found: found[0] + self._char, value)
        if isinstance(value, Mapping):
            return {self._mark(key): self._mark(item) for key, item in value.items()}
        return [self._mark(item) for item in value] if isinstance(value, list) else value


def _places(specials: Iterable[str]) -> re.Pattern[str]:
    """Inside the first two characters of a special token and inside its last two; also behind
    its first at the end of a text and before its last at the start, where more may join."""
    patterns = set()
    for text in specials:
        first, second, before, last = map(re.escape, (text[0], text[1], text[-2], text[-1]))
        patterns |= {
            f"{first}(?={second})",
            rf"{first}(?=\s*\Z)",
            f"{before}(?={last})",
            rf"\A\s*(?={last})",
        }
    return re.compile("|".join(sorted(patterns)))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(_strings, chain(value, value.values())))
    elif isinstance(value, list):
        yield from chain.from_iterable(map(_strings, value))
