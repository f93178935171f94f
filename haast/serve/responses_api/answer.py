"""One answer of the Responses API: its messages are told apart."""

from dataclasses import replace

from haast.harmony import Delta
from haast.serve.answer import Piece
from haast.serve.chat_answer import ChatAnswer


class ResponseAnswer(ChatAnswer):
    """See `ChatAnswer`; every piece is of one message, and no text is put between messages.

    A stop string is sought in each message of content on its own.
    is_cut  whether the tokens ended within a message; known once they have
    """

    is_cut = False

    def _told(self, delta: Delta, is_new: bool) -> list[Piece]:
        if self._stops.is_found:
            return []
        if delta.kind == "tool_call":
            told = self._call(delta, delta.text, is_new)
        elif delta.kind == "content":
            told = self._content(delta, is_new)
        else:
            told = [Piece("reasoning", delta.text)] if delta.text else []
        return [replace(piece, message=delta.index) for piece in told]

    def _content(self, delta: Delta, is_new: bool) -> list[Piece]:
        self._length += len(delta.text)
        text = self._stops.add(delta.text)
        if delta.end and not self._stops.is_found:
            text += self._stops.flush()
        self._released += len(text)
        is_preamble = delta.channel == "commentary"
        # an empty answer is one, too
        if not text and (is_preamble or not is_new):
            return []
        tokens = self._pending.release(self._released)
        return [Piece("content", text, tokens=tokens, is_preamble=is_preamble)]

    def _end(self, reason: str) -> list[Piece]:
        self.is_cut = reason == "length" and self._open is not None
        return super()._end(reason)
