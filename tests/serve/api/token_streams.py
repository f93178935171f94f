"""Random token streams: what a model should say, what it says by mistake, and noise."""

from random import Random

from .spoken import SPECIAL, TOKENIZER

MARKERS = [*vars(SPECIAL).values(), min(TOKENIZER.special_ids - set(vars(SPECIAL).values()))]
CHANNELS = ["analysis", "commentary", "final"]
FUNCTIONS = [" to=functions.f", " to=functions.lookup"]
WORDS = ["Final", "final?", "comment", "assistant", "user", "to=", " to=g", " to=python", " json"]
TEXTS = ["Hello", " world", "{}", '{"a": 1}', " ", "\n\n", "é", "𝔊", "🫠", "a b ab", "<", " 4"]
TEXTS += ["analysis", "assistantfinal", "commentary to=functions.f", "to=", "assistantanalysis"]
_ENCODED = [TOKENIZER.encode(text) for text in (*CHANNELS, *FUNCTIONS, *WORDS, *TEXTS)]
_BYTES = [[token_id] for token_id in range(256)]
"""Tokens of one byte, half of which are no character alone"""
_TEXTS = [TOKENIZER.encode(text) for text in TEXTS]
_CHANNELS = [TOKENIZER.encode(text) for text in CHANNELS]
_ASSISTANT = TOKENIZER.encode("assistant")
_JSON = TOKENIZER.encode(" json")
_CALLS = [TOKENIZER.encode(text) for text in FUNCTIONS]


def legal(random: Random) -> list[int]:
    """Messages as the format has them, the last one closed or cut."""
    ids: list[int] = []
    for number in range(random.randint(1, 3)):
        ids += [SPECIAL.end, SPECIAL.start, *_ASSISTANT] if number else []
        ids += [SPECIAL.channel, *random.choice(_CHANNELS), SPECIAL.message, *_text(random)]
    shape = random.random()
    if shape < 0.4:
        return [*ids, SPECIAL.return_]
    if shape < 0.8:
        ids += [SPECIAL.end, SPECIAL.start, *_ASSISTANT, *random.choice(_CALLS), SPECIAL.channel]
        return [*ids, *_CHANNELS[1], *_JSON, SPECIAL.message, *_text(random), SPECIAL.call]
    return ids[: random.randint(1, len(ids))]


def broken(random: Random) -> list[int]:
    """A legal stream in which a few tokens are lost, doubled, swapped or strange."""
    ids = legal(random)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(ids)) if ids else 0
        how = random.random()
        if how < 0.3:
            del ids[at : at + 1]
        elif how < 0.5:
            ids[at:at] = ids[at : at + 1]
        elif how < 0.6:
            ids[at : at + 2] = ids[at : at + 2][::-1]
        else:
            ids[at : at + (how < 0.8)] = _any(random)
    return ids


def noise(random: Random) -> list[int]:
    """Markers, header words, texts and numbers that are no tokens, in any order."""
    return [token_id for _ in range(random.randint(0, 8)) for token_id in _any(random)]


def _text(random: Random) -> list[int]:
    texts = [random.choice(_TEXTS) for _ in range(random.randint(0, 3))]
    return [token_id for text in texts for token_id in text]


def _any(random: Random) -> list[int]:
    kind = random.random()
    if kind < 0.45:
        return [random.choice(MARKERS)]
    if kind < 0.85:
        return random.choice(_ENCODED)
    if kind < 0.97:
        return random.choice(_BYTES)
    return [random.choice([-1, 199_000, 201_087, 201_088, 1 << 40])]
