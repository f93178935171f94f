"""Which words haast-tiny learns by heart, which it only looks up, which it never sees."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from wordnet import Noun

NUM_KNOWN = 9000
ALWAYS_KNOWN = ("bald eagle",)


@dataclass(frozen=True)
class Vocabulary:
    """Words learned by heart, words only ever looked up, and words kept out of training."""

    known: tuple[Noun, ...]
    looked_up: tuple[Noun, ...]
    held_out: tuple[Noun, ...]
    things: tuple[Noun, ...]
    """known words that name physical things"""
    kinds: tuple[str, ...]
    """physical kinds that many of these belong to"""


def choose_vocabulary(nouns: Sequence[Noun]) -> Vocabulary:
    """Words that WordNet's corpora use, then simple kinds of them; the rest is for looking up."""
    common = [n for n in nouns if n.frequency]
    names = {n.word for n in common}
    kindred = [n for n in nouns if not n.frequency and n.kinds and n.kinds[0] in names]
    kindred.sort(key=lambda n: (n.word not in ALWAYS_KNOWN, len(n.word), n.word))
    known = (*common, *kindred)[:NUM_KNOWN]
    names = {n.word for n in known}
    rest = [n for n in nouns if n.word not in names]
    counts = Counter(kind for n in known for kind in n.kinds)
    return Vocabulary(
        known=known,
        looked_up=tuple(n for i, n in enumerate(rest) if i % 20),
        held_out=tuple(rest[::20]),
        things=tuple(n for n in known if n.kinds),
        kinds=tuple(sorted(kind for kind, count in counts.items() if count >= 12)),
    )
