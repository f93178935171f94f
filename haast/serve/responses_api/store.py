"""Responses that clients may come back to, in memory, within bounds."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from haast.serve.responses_api.items import Item

if TYPE_CHECKING:
    from haast.serve.responses_api.background import Background

MAX_RESPONSES = 16384
_OVERHEAD = 1024
"""Bytes that a response, a turn or an item takes besides its text, and then some"""
encode = msgspec.json.Encoder().encode
_items = msgspec.json.Decoder(list[dict[str, Any]]).decode


@dataclass(eq=False)
class Turn:
    """What one response added to its conversation: JSON lists of items, which stay as they are.

    ids        of all items
    num_users  stored responses and later turns that need it; it counts as kept while there are any
    """

    input: bytes
    output: bytes
    ids: tuple[str, ...]
    previous: "Turn | None" = None
    num_users: int = 0

    @property
    def num_bytes(self) -> int:
        return _OVERHEAD * (1 + len(self.ids)) + len(self.input) + len(self.output)

    @property
    def total_bytes(self) -> int:
        """Text of the whole conversation."""
        return sum(len(turn.input) + len(turn.output) for turn in _back_from(self))

    def context(self) -> list[Item]:
        """Items of the conversation before this turn's output, oldest first."""
        before = self.previous.items() if self.previous else []
        return before + _items(self.input)

    def items(self) -> list[Item]:
        """Items of the whole conversation, oldest first."""
        turns = reversed(list(_back_from(self)))
        return [item for t in turns for item in _items(t.input) + _items(t.output)]

    def with_output(self, items: Sequence[Item]) -> "Turn":
        """The same turn, answered."""
        ids = self.ids + tuple(item["id"] for item in items)
        return Turn(self.input, encode(items), ids, self.previous)


def new_turn(items: Sequence[Item], previous: Turn | None) -> Turn:
    """A turn with its input."""
    return Turn(encode(items), b"[]", tuple(item["id"] for item in items), previous)


@dataclass(eq=False)
class Stored:
    """A response that may be asked for.

    document    what the API shows of it, in JSON; empty while it runs in the background
    background  generates it, or did and kept its events
    """

    id: str
    turn: Turn
    document: bytes = b""
    background: "Background | None" = None

    @property
    def is_running(self) -> bool:
        return not self.document

    def shown(self) -> dict[str, Any]:
        """What the API shows of it now."""
        if self.background is not None and self.is_running:
            return self.background.response.document()
        shown: dict[str, Any] = msgspec.json.decode(self.document)
        return shown

    @property
    def num_bytes(self) -> int:
        """Without its turn."""
        events = self.background.num_bytes if self.background else 0
        return _OVERHEAD + len(self.document) + events


class ResponseStore:
    """The least recently used responses go when there are too many or they are too large.

    Those that still run in the background stay.
    num_bytes  of all that is kept, turns that later ones need included
    """

    def __init__(self, max_bytes: int, max_responses: int = MAX_RESPONSES) -> None:
        self.num_bytes = 0
        self._max_bytes = max_bytes
        self._max_responses = max_responses
        self._stored: OrderedDict[str, Stored] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._places: dict[str, str] = {}

    @property
    def is_on(self) -> bool:
        """Whether anything is kept at all."""
        return self._max_bytes > 0

    def __len__(self) -> int:
        return len(self._stored)

    def put(self, stored: Stored) -> None:
        """Keep a response, or what has become of one that is kept."""
        self.delete(stored.id)
        self._stored[stored.id] = stored
        self._sizes[stored.id] = stored.num_bytes
        self.num_bytes += stored.num_bytes
        self._hold(stored.turn)
        self._places.update(dict.fromkeys(stored.turn.ids, stored.id))
        self._shrink()

    def get(self, name: str) -> Stored | None:
        """A response, which is now the most recently used."""
        if name in self._stored:
            self._stored.move_to_end(name)
        return self._stored.get(name)

    def find_item(self, name: str) -> Item | None:
        """An item of a stored response, its input or its output."""
        stored = self.get(self._places.get(name, ""))
        if stored is None:
            return None
        own = _items(stored.turn.input) + _items(stored.turn.output)
        return next((item for item in own if item["id"] == name), None)

    def delete(self, name: str) -> Stored | None:
        """Forget a response; None if there is none. What later turns need of it stays."""
        stored = self._stored.pop(name, None)
        if stored is None:
            return None
        self.num_bytes -= self._sizes.pop(name)
        for item_id in stored.turn.ids:
            if self._places.get(item_id) == name:
                del self._places[item_id]
        self._release(stored.turn)
        return stored

    @property
    def _is_over(self) -> bool:
        return self.num_bytes > self._max_bytes or len(self._stored) > self._max_responses

    def _shrink(self) -> None:
        for name, stored in list(self._stored.items()) if self._is_over else ():
            if not stored.is_running:
                self.delete(name)
            if not self._is_over:
                return

    def _hold(self, turn: Turn) -> None:
        for each in _back_from(turn):
            each.num_users += 1
            if each.num_users > 1:
                return
            self.num_bytes += each.num_bytes

    def _release(self, turn: Turn) -> None:
        for each in _back_from(turn):
            each.num_users -= 1
            if each.num_users:
                return
            self.num_bytes -= each.num_bytes


def _back_from(turn: Turn) -> Iterator[Turn]:
    each: Turn | None = turn
    while each is not None:
        yield each
        each = each.previous
