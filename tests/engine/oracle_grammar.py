"""Grammars over the oracle's vocabulary: what may come next is a hash of all that came before.

A text is a number, by which grammars differ, or one of
- `end N`: N tokens, then nothing but END;
- `done N`: N tokens, and no more;
- `stuck N`: after N tokens none may follow;
- `refuse N`: the token after N tokens is refused although its mask allowed it.
"""

from haast.engine.request import RequestError

END = 7


def mask_bytes(token_ids, size):
    return sum(1 << t for t in token_ids).to_bytes(size, "little")


class OracleMatcher:
    def __init__(self, text, vocab_size):
        self.kind, _, number = text.rpartition(" ")
        self.number = int(number)
        self.vocab_size = vocab_size
        self.consumed = []

    def allowed(self):
        """Token ids that may come next, never all and never none."""
        count = len(self.consumed)
        if self.kind == "end" and count >= self.number:
            return {END}
        ids = {t for t in range(self.vocab_size) if hash((self.number, *self.consumed, t)) % 3 == 0}
        return (ids or {1}) - {END} if self.kind == "end" else ids or {1}

    def consume(self, token_id):
        assert token_id in self.allowed(), (self.consumed, token_id)
        if self.kind == "refuse" and len(self.consumed) == self.number:
            return "refused on purpose"
        self.consumed.append(token_id)
        return None

    @property
    def is_done(self):
        return self.kind == "done" and len(self.consumed) >= self.number

    @property
    def why_stuck(self):
        return "so it was planted" if self._is_stuck() else None

    def _is_stuck(self):
        return self.kind == "stuck" and len(self.consumed) >= self.number


class OracleGrammars:
    def __init__(self, vocab_size):
        self.vocab_size = vocab_size
        self.num_fills = 0

    def matcher(self, text):
        try:
            return OracleMatcher(text, self.vocab_size)
        except ValueError:
            raise RequestError(f"grammar: {text} has no number") from None

    def fill(self, matchers, masks, size):
        self.num_fills += 1
        for matcher, row in matchers:
            masks[row * size : (row + 1) * size] = mask_bytes(matcher.allowed(), size)
