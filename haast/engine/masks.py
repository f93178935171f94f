"""Masks: which tokens a constrained request may have next. Pure Python.

A mask has a bit a token of the vocabulary: bit i % 8 of byte i // 8 is token i.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from haast.engine.request import Request
    from haast.engine.step import Step


class Matcher(Protocol):
    """How far one request has come in its grammar."""

    def consume(self, token_id: int) -> str | None:
        """Go on by a token; why that cannot be, in one line."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether the grammar has ended: nothing but a stop token may follow."""
        ...

    @property
    def why_stuck(self) -> str | None:
        """Why no token may follow although the grammar has not ended, in one line."""
        ...


class Grammars(Protocol):
    """Makes matchers of texts that the engine does not read."""

    def warm(self) -> None:
        """Prepare what the first grammar would wait for; may run in any thread."""
        ...

    def is_compiled(self, text: str) -> bool:
        """Whether a matcher of a text is to be had at once."""
        ...

    def compile(self, text: str) -> None:
        """See to that, in any thread. Raises RequestError if it is no grammar."""
        ...

    def matcher(self, text: str) -> Matcher:
        """At the beginning of a grammar. Raises RequestError if it is none."""
        ...

    def fill(self, matchers: Sequence[tuple[Matcher, int]], masks: memoryview, size: int) -> None:
        """Write the mask of each matcher to the row that stands beside it.

        masks  bytes of all rows, one after the other
        size   bytes of a row
        """
        ...


class Constraint:
    """What a request may sample: what its grammar, its list, or both allow.

    allowed  a mask as a whole number; None = every token
    """

    __slots__ = ("allowed", "matcher")

    def __init__(self, matcher: Matcher | None, token_ids: Iterable[int] | None) -> None:
        self.matcher = matcher
        self.allowed = None if token_ids is None else mask_of(token_ids)

    @property
    def is_done(self) -> bool:
        return self.matcher is not None and self.matcher.is_done

    def consume(self, token_id: int) -> str | None:
        """Go on by a sampled token; why that cannot be, in one line."""
        return None if self.matcher is None else self.matcher.consume(token_id)


def mask_of(token_ids: Iterable[int]) -> int:
    """A mask as a whole number."""
    mask = bytearray()
    for token_id in sorted(token_ids):
        at = token_id // 8
        mask += bytes(at + 1 - len(mask))
        mask[at] |= 1 << token_id % 8
    return int.from_bytes(mask, "little")


class MaskFiller:
    """Fills the masks of steps.

    size  bytes of a mask: whole words of 32 tokens
    """

    def __init__(self, grammars: Grammars | None, vocab_size: int) -> None:
        self.grammars = grammars
        self.size = -(-vocab_size // 32) * 4
        self._everything = b"\xff" * self.size

    def fill(self, step: "Step", masks: memoryview) -> list[tuple["Request", str]]:
        """The masks of a step's masked rows, in order; every earlier token must be known.

        masks    len(step.masked) * size bytes
        returns  who has no token to go on with, and why; their rows allow everything
        """
        matched: list[tuple[Matcher, int]] = []
        going: list[tuple[int, Request, Constraint]] = []
        for row, at in enumerate(step.masked):
            request = step.sampling[at]
            constraint = request.constraint
            assert constraint is not None, request
            if request.finish_reason is not None:
                self._allow_all(masks, row)
                continue
            going.append((row, request, constraint))
            if constraint.matcher is not None:
                matched.append((constraint.matcher, row))
            else:
                self._allow_all(masks, row)
        if matched:
            assert self.grammars is not None
            self.grammars.fill(matched, masks, self.size)
        stuck = []
        for row, request, constraint in going:
            why = self._narrow(request, constraint, masks[row * self.size : (row + 1) * self.size])
            if why is not None:
                self._allow_all(masks, row)
                stuck.append((request, why))
        return stuck

    def _allow_all(self, masks: memoryview, row: int) -> None:
        masks[row * self.size : (row + 1) * self.size] = self._everything

    def _narrow(self, request: "Request", constraint: Constraint, mask: memoryview) -> str | None:
        """Leave out what the grammar does not know of; why nothing is left.

        Where the grammar allows nothing but an end it ends, min_tokens or not.
        """
        matcher = constraint.matcher
        if matcher is not None and (why := matcher.why_stuck) is not None:
            return f"the grammar is stuck: {why}"
        if constraint.allowed is not None:
            left = int.from_bytes(mask, "little") & constraint.allowed
            if not left:
                return (
                    "no token is left to go on with: allowed_token_ids has none that may come next"
                )
            mask[:] = left.to_bytes(self.size, "little")
        if len(request.output_ids) < request.params.min_tokens:
            _leave_out_ends(request, mask)
        return None


def _leave_out_ends(request: "Request", mask: memoryview) -> None:
    """Unless nothing else is left; a few bytes at a time, as every row has this at every step."""
    before = [(token_id // 8, mask[token_id // 8]) for token_id in request.end_ids]
    for token_id in request.end_ids:
        mask[token_id // 8] &= ~(1 << token_id % 8) & 0xFF
    if not bytes(mask).strip(b"\0"):
        for at, byte in before:
            mask[at] = byte
