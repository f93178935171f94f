"""Philox against Random123's known answers, and the streams made of it."""

import pytest
import torch

from haast.ops.sample.philox import philox, uniform

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
SEEDS = (0, 1, 7, 1 << 31, 1 << 32, 0x123456789ABCDEF0, 1 << 63, (1 << 64) - 1)
POSITIONS = (0, 1, 131_071, (1 << 31) - 1)


def signed(seed):
    """The same 64 bits."""
    return seed - (1 << 64) if seed >> 63 else seed


@pytest.mark.parametrize("counter, key, words", KNOWN.values(), ids=KNOWN)
def test_known_answers(counter, key, words):
    """philox4x32 with 10 rounds, kat_vectors of Random123; the same of tensors."""
    assert philox(counter, key) == words
    tensors = philox(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert tuple(word.item() for word in tensors) == words


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_uniform_is_the_first_word_of_its_counter(dtype):
    pairs = [(seed, position) for seed in SEEDS for position in POSITIONS]
    seeds = torch.tensor([signed(seed) for seed, _ in pairs])
    got = uniform(seeds, torch.tensor([position for _, position in pairs], dtype=dtype))
    for number, (seed, position) in zip(got.tolist(), pairs, strict=True):
        words = philox((position, 0, 0, 0), (seed & ONES, seed >> 32))
        assert number == words[0] / 2**32, (seed, position)


def test_neither_half_of_a_seed_is_lost():
    seeds = torch.tensor([signed(seed) for seed in SEEDS])
    assert len({*uniform(seeds, torch.full_like(seeds, 5)).tolist()}) == len(SEEDS)


def test_uniform_covers_the_unit_interval():
    drawn = uniform(torch.full((2000,), 7), torch.arange(2000)).tolist()
    assert 0 <= min(drawn) < 0.01 and 0.99 < max(drawn) < 1
    assert len(set(drawn)) == 2000
    counts = [sum(i / 10 <= u < (i + 1) / 10 for u in drawn) for i in range(10)]
    assert min(counts) > 150 and max(counts) < 250, counts
