"""Generated token ids -> text as it arrives, ended by the user's stop strings."""

from collections.abc import Sequence
from dataclasses import dataclass

from haast.harmony import Delta, HarmonyParser, Reply, Tokenizer
from haast.harmony.delta import Kind


@dataclass(frozen=True)
class TextDelta:
    """A piece of what the model says: its answer, its reasoning or a tool call's arguments."""

    kind: Kind
    text: str


class ReplyStream:
    """Follows one generation from its first token.

    Stop strings are sought in the answer only; text that might be the beginning of one is held
    back until it is known.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop_strings: Sequence[str], opened: Sequence[int] = ()
    ) -> None:
        self.reply = Reply()
        self.is_stopped = False
        self._parser = HarmonyParser(tokenizer)
        self._stop_strings = stop_strings
        self._held = ""
        self._content: list[str] = []
        for token_id in opened:
            self._parser.feed(token_id)

    @property
    def content(self) -> str:
        """The answer so far, cut before the stop string that ended it."""
        return "".join(self._content)

    @property
    def anomalies(self) -> dict[str, int]:
        """How often the model left the harmony format, by kind."""
        return dict(self._parser.anomalies)

    def feed(self, token_id: int) -> list[TextDelta]:
        """What one more token adds; nothing once a stop string was found."""
        return self._take(self._parser.feed(token_id))

    def finish(self) -> list[TextDelta]:
        """The rest, when generation has ended."""
        deltas = self._take(self._parser.finish())
        if self._held and not self.is_stopped:
            deltas += self._release(self._held)
        return deltas

    def _take(self, deltas: Sequence[Delta]) -> list[TextDelta]:
        taken: list[TextDelta] = []
        for delta in deltas:
            text = self.reply.add(delta)
            if not text or self.is_stopped:
                continue
            if delta.kind == "content":
                taken += self._until_stop(text)
            else:
                taken.append(TextDelta(delta.kind, text))
        return taken

    def _until_stop(self, text: str) -> list[TextDelta]:
        text = self._held + text
        found = [
            (at + len(stop), at) for stop in self._stop_strings if (at := text.find(stop)) >= 0
        ]
        self.is_stopped = bool(found)
        # the one complete first, so that it does not matter how the text is cut into tokens
        keep = min(found)[1] if found else len(text) - self._held_length(text)
        self._held = "" if found else text[keep:]
        return self._release(text[:keep])

    def _held_length(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string begins with."""
        lengths = (
            length
            for stop in self._stop_strings
            for length in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:length])
        )
        return max(lengths, default=0)

    def _release(self, text: str) -> list[TextDelta]:
        if not text:
            return []
        self._content.append(text)
        return [TextDelta("content", text)]
