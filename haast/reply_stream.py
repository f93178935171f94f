"""Generated token ids -> text as it arrives, ended by the user's stop strings."""

from collections.abc import Sequence
from dataclasses import dataclass

from haast.harmony import Delta, HarmonyParser, Reply, Tokenizer
from haast.harmony.delta import Kind
from haast.stop_strings import StopStrings


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
        self._parser = HarmonyParser(tokenizer)
        self._stops = StopStrings(stop_strings)
        self._content: list[str] = []
        for token_id in opened:
            self._parser.feed(token_id)

    @property
    def is_stopped(self) -> bool:
        return self._stops.is_found

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
        return self._take(self._parser.finish()) + self._release(self._stops.flush())

    def _take(self, deltas: Sequence[Delta]) -> list[TextDelta]:
        taken: list[TextDelta] = []
        for delta in deltas:
            text = self.reply.add(delta)
            if not text or self.is_stopped:
                continue
            if delta.kind == "content":
                taken += self._release(self._stops.add(text))
            else:
                taken.append(TextDelta(delta.kind, text))
        return taken

    def _release(self, text: str) -> list[TextDelta]:
        if not text:
            return []
        self._content.append(text)
        return [TextDelta("content", text)]
