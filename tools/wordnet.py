"""Nouns of WordNet 3.0 that a small model can learn: a word, what it is, and its kinds.

Reads the database files of Debian's package wordnet-base (see THIRD_PARTY.md for the licence).
Format: wndb(5WN).
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PHYSICAL = {"05", "06", "08", "13", "20"}
"""Lexicographer files of animals, artefacts, body parts, food and plants."""
_WORD = re.compile(r"[a-z]+(?:[ -][a-z]+){0,2}")
_ARTICLES = ("a ", "an ", "any ", "the ")
_TOP_KINDS = {"organism", "living thing", "whole", "object", "physical entity", "entity", "matter"}


@dataclass(frozen=True)
class Noun:
    """One word in its most frequent sense."""

    word: str
    gloss: str
    """begins with a, an, any or the"""
    kinds: tuple[str, ...]
    """ever more general physical kinds, nearest first; empty if the word is not a physical thing"""
    ancestors: frozenset[str]
    """every word for everything it is, through all parents"""
    frequency: int
    """times the word is tagged as a noun in WordNet's corpora"""

    @property
    def named(self) -> str:
        """The word with its indefinite article, or alone if its gloss treats it as unique."""
        is_unique = self.gloss.startswith("the ") and not self.kinds
        return self.word if is_unique else with_article(self.word)


def with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


@dataclass(frozen=True)
class _Synset:
    words: tuple[str, ...]
    domain: str
    gloss: str
    parents: tuple[str, ...]


def read_nouns(folder: Path) -> list[Noun]:
    """Every usable noun, the most frequent first, ties in alphabetical order."""
    synsets = _read_synsets(folder / "data.noun")
    frequencies = _read_frequencies(folder / "cntlist.rev")
    nouns = []
    for line in (folder / "index.noun").read_text().splitlines():
        if not line.startswith(" "):
            noun = _noun(line.split(), synsets, frequencies)
            if noun is not None:
                nouns.append(noun)
    return sorted(nouns, key=lambda noun: (-noun.frequency, noun.word))


def _read_synsets(path: Path) -> dict[str, _Synset]:
    synsets = {}
    for line in path.read_text().splitlines():
        if line.startswith(" "):
            continue
        fields, gloss = line.split(" | ", 1)
        parts = fields.split()
        pointers = parts[5 + 2 * int(parts[3], 16) :]
        parents = [pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] == "@"]
        synsets[parts[0]] = _Synset(
            words=tuple(w.replace("_", " ") for w in parts[4 : 4 + 2 * int(parts[3], 16) : 2]),
            domain=parts[1],
            gloss=_sentence_part(gloss, is_thing=parts[1] in PHYSICAL),
            parents=tuple(parents),
        )
    return synsets


def _read_frequencies(path: Path) -> Counter[str]:
    """Lemma -> tag count over its noun senses (sense keys `lemma%1:...`)."""
    counts: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        key, _sense_number, count = line.split()
        lemma, _, rest = key.partition("%")
        if rest.startswith("1:"):
            counts[lemma] += int(count)
    return counts


def _noun(fields: list[str], synsets: dict[str, _Synset], frequencies: Counter[str]) -> Noun | None:
    """One line of index.noun, or None if the word or its gloss does not suit short sentences."""
    word = fields[0].replace("_", " ")
    synset = synsets[fields[6 + int(fields[3])]]
    is_common_noun = _WORD.fullmatch(word) and word in synset.words
    if not is_common_noun or not _is_short_sentence(synset.gloss, word):
        return None
    kinds = tuple(_kinds(synset, synsets)) if synset.domain in PHYSICAL else ()
    return Noun(word, synset.gloss, kinds, _ancestors(synset, synsets), frequencies[fields[0]])


def _sentence_part(gloss: str, is_thing: bool) -> str:
    """A gloss's first definition, to go after "is"; things get the article it often leaves out."""
    first = " ".join(re.sub(r"\([^)]*\)", "", gloss).split(";")[0].split('"')[0].split()).strip(
        ",: "
    )
    may_be_plural = any(word.endswith("s") for word in first.split()[:6])
    if not is_thing or not first or first.startswith(_ARTICLES) or may_be_plural:
        return first
    return with_article(first)


def _is_short_sentence(gloss: str, word: str) -> bool:
    words = gloss.split()
    fits = 3 <= len(words) <= 20 and gloss.startswith(_ARTICLES) and gloss.isascii()
    return fits and not set('()`_"') & set(gloss) and word != words[1]


def _kinds(synset: _Synset, synsets: dict[str, _Synset]) -> list[str]:
    kinds: list[str] = []
    while synset.parents:
        synset = synsets[synset.parents[0]]
        kind = synset.words[0]
        if kind in _TOP_KINDS or synset.domain not in PHYSICAL:
            break
        if _WORD.fullmatch(kind) and kind not in kinds:
            kinds.append(kind)
    return kinds


def _ancestors(synset: _Synset, synsets: dict[str, _Synset]) -> frozenset[str]:
    above: set[str] = set()
    for parent in synset.parents:
        above.update(synsets[parent].words, _ancestors(synsets[parent], synsets))
    return frozenset(above)
