"""What guessing costs and wins, by a clock that knows how long steps of so many rows take."""

from random import Random

import pytest

from . import oracle_runner
from .telling import step_ms, told_ms

LENGTH, PROMPT = 340, 40
BATCHES = (1, 2, 8)


@pytest.fixture(autouse=True)
def pages(monkeypatch):
    """Of a real size: guesses end where a page does."""
    monkeypatch.setattr(oracle_runner, "PAGE_SIZE", 128)


def test_the_clock():
    times = [step_ms(rows) for rows in (1, 2, 3, 8, 128)]
    assert times == pytest.approx([2.01, 2.50, 2.845, 3.94, 8.54])


def fresh(random):
    """Tokens drawn anew."""
    return random.choices(range(60), k=LENGTH)


def few_words(random):
    """The last tokens stood there before, but what follows is drawn anew."""
    return random.choices(range(3), k=LENGTH)


def traps(random):
    """Half a phrase, and then another end each time."""
    text = []
    while len(text) < LENGTH:
        text += [1, 2, 3, 4, 5, *random.choices(range(6, 60), k=4)]
    return text[:LENGTH]


def false_starts(random):
    """Repeats itself for long enough to be believed, then not."""
    text = []
    while len(text) < LENGTH:
        word = random.choices(range(60), k=2)
        text += [*word * random.randint(3, 5), *random.choices(range(60), k=8)]
    return text[:LENGTH]


def half_right(random):
    """Every other token of a long phrase that comes again is another one."""
    phrase = random.choices(range(60), k=30)
    return [
        phrase[at % 30] if random.random() < 0.5 else random.randrange(60) for at in range(LENGTH)
    ]


@pytest.mark.parametrize("lookup", [(7, 1, 1), (7, 3, 5), (3, 2, 4), (20, 1, 3)])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("text", [fresh, few_words, traps, false_starts, half_right])
def test_what_does_not_help_costs_three_percent_at_most(text, batch, lookup):
    random = Random(batch)
    texts = [text(random) for _ in range(batch)]
    plain_ms, _ = told_ms(texts, PROMPT)
    guessed_ms, counts = told_ms(texts, PROMPT, lookup=lookup)
    assert guessed_ms <= 1.03 * plain_ms, (counts, guessed_ms / plain_ms)
    if text in (few_words, traps):
        assert counts.tokens > counts.accepted, "nothing was tried"


def loop(random):
    return [random.randrange(60) for _ in range(PROMPT)] + [*range(7)] * 50


def quote(random):
    """The prompt again, with a word of one's own now and then."""
    prompt = random.choices(range(60), k=PROMPT)
    text = prompt[:]
    while len(text) < LENGTH:
        at = random.randrange(PROMPT - 20)
        text += [*prompt[at : at + 20], random.randrange(60)]
    return text


@pytest.mark.parametrize("batch, share", [(1, 0.65), (2, 0.8), (8, 0.85)])
@pytest.mark.parametrize("text", [loop, quote])
def test_what_repeats_itself_is_told_sooner(text, batch, share):
    random = Random(batch)
    texts = [text(random)[:LENGTH] for _ in range(batch)]
    plain_ms, _ = told_ms(texts, PROMPT)
    guessed_ms, counts = told_ms(texts, PROMPT, lookup=(7, 3, 5))
    assert guessed_ms <= share * plain_ms, (counts, guessed_ms / plain_ms)
    assert counts.per_position[0] >= counts.per_position[-1] > 0
    assert sum(counts.per_position) == counts.accepted > counts.drafts
