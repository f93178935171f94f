"""Texts that end an answer, found however the answer is cut into pieces."""

from collections.abc import Sequence


class StopStrings:
    """Passes an answer's text on up to the first stop string; that is no part of the answer.

    Text that might be the beginning of a stop string is held back until it is known.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.is_found = False
        self._stops = stops
        self._held = ""

    def add(self, text: str) -> str:
        """What of the answer is known once `text` has been added to it."""
        if self.is_found:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        self.is_found = bool(found)
        # the one complete first, so that it does not matter how the text is cut into tokens
        keep = min(found)[1] if found else len(text) - self._held_length(text)
        self._held = "" if found else text[keep:]
        return text[:keep]

    def flush(self) -> str:
        """The rest, when the answer has ended."""
        rest, self._held = self._held, ""
        return rest

    def _held_length(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string begins with."""
        lengths = (
            length
            for stop in self._stops
            for length in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:length])
        )
        return max(lengths, default=0)
