"""Philox against Random123's known answers, and the streams made of it."""

import pytest

from haast.engine.random import philox, uniform

ONES = 0xFFFFFFFF
KNOWN = {
    "zeros": (
        (0, 0, 0, 0),
        (0, 0),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    "ones": (
        (ONES, ONES, ONES, ONES),
        (ONES, ONES),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    "digits of pi": (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
}


@pytest.mark.parametrize("counter, key, words", KNOWN.values(), ids=KNOWN)
def test_known_answers(counter, key, words):
    """philox4x32 with 10 rounds, kat_vectors of Random123."""
    assert philox(counter, key) == words


def test_uniform_is_the_first_word_of_its_counter():
    assert uniform(0, 0) == 0x6627E8D5 / 2**32
    seed, position = 0x123456789ABCDEF0, 0x1_0000_0002
    words = philox((2, 1, 0, 0), (0x9ABCDEF0, 0x12345678))
    assert uniform(seed, position) == words[0] / 2**32


def test_neither_half_of_a_seed_is_lost():
    seeds = (0, 1, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1)
    assert len({uniform(seed, 5) for seed in seeds}) == len(seeds)


def test_uniform_covers_the_unit_interval():
    drawn = [uniform(7, position) for position in range(2000)]
    assert 0 <= min(drawn) < 0.01 and 0.99 < max(drawn) < 1
    assert len(set(drawn)) == 2000
    counts = [sum(i / 10 <= u < (i + 1) / 10 for u in drawn) for i in range(10)]
    assert min(counts) > 150 and max(counts) < 250, counts
