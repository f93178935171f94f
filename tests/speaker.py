"""Spells replies in a vocabulary, and follows them with grammars."""

import numpy as np

from haast.grammars import LlGrammars
from haast.harmony import HarmonyParser, Reply, Tokenizer, reply_grammar
from haast.model.locate import demo_folder, packaged_folder

PATHS = {
    "tiny": demo_folder() / "tokenizer.json",
    "real": packaged_folder("gpt-oss-20b") / "tokenizer.json.xz",
}


class Ids:
    """Many token ids."""

    def __init__(self, bits):
        self.bits = bits

    def __contains__(self, token_id):
        return bool(self.bits[token_id])


class Speaker:
    """Spells replies in a vocabulary and tells how far grammars follow them."""

    def __init__(self, path):
        self.tokenizer = Tokenizer(path)
        self.special = self.tokenizer.special
        self.grammars = LlGrammars(self.tokenizer, self.tokenizer.vocab_size)
        self.size = -(-self.tokenizer.vocab_size // 32) * 4
        self.next = [self.special.end, self.special.start, *self.encode("assistant")]

    def encode(self, text):
        return self.tokenizer.encode(text)

    def message(self, channel, text, to="", kind="", is_late=False):
        """A message up to its end; to: of a call, before or behind the channel."""
        recipient = self.encode(f" to=functions.{to}") if to else []
        header = [self.special.channel, *self.encode(channel)]
        header = [*header, *recipient] if is_late else [*recipient, *header]
        if kind == "json":
            header += self.encode(" json")
        elif kind:
            space = self.encode(" ") if kind == "spaced" else []
            header += [*space, self.special.constrain, *self.encode("json")]
        return [*header, self.special.message, *self.encode(text)]

    def mask(self, matcher):
        """The ids that may come next."""
        data = np.zeros(3 * self.size, np.uint8)
        self.grammars.fill([(matcher, 1)], data.data, self.size)
        assert not data[: self.size].any() and not data[2 * self.size :].any()
        bits = np.unpackbits(data[self.size : 2 * self.size], bitorder="little")
        return {*np.flatnonzero(bits)} if bits.sum() < 300 else Ids(bits)

    def follow(self, grammar, token_ids):
        """How many of the ids the grammar allows, and the matcher after them."""
        matcher = self.grammars.matcher(grammar)
        for count, token_id in enumerate(token_ids):
            if token_id not in self.mask(matcher):
                return count, matcher
            assert matcher.consume(token_id) is None and matcher.why_stuck is None
        return len(token_ids), matcher

    def takes(self, rules, token_ids):
        """Whether a whole reply is one of those that the rules allow."""
        count, matcher = self.follow(reply_grammar(rules, self.tokenizer), token_ids)
        may_end = matcher.is_done or self.special.return_ in self.mask(matcher)
        return count == len(token_ids) and may_end


def read(speaker, reply):
    """Reasoning, content and calls, in which the parser finds nothing odd."""
    parser, folded = HarmonyParser(speaker.tokenizer), Reply()
    for token_id in reply:
        for delta in parser.feed(token_id):
            folded.add(delta)
    for delta in parser.finish():
        folded.add(delta)
    assert parser.anomalies == {}
    return folded.reasoning, folded.content, folded.tool_calls
