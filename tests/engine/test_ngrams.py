"""Where the last tokens stood before, against looking everywhere."""

from random import Random

import pytest

from haast.engine.ngrams import MOST_CANDIDATES, Ngrams


def followed(ids, shortest, longest, count, skip=0):
    ngrams = Ngrams(shortest, longest)
    ngrams.read(ids, 1 << 30)
    return ngrams.following(skip, count)


def slowly_followed(ids, num_indexed, shortest, longest, count):
    found = []
    for end in range(min(num_indexed, len(ids) - 1), shortest - 1, -1):
        common = 0
        while common < min(longest, end) and ids[end - 1 - common] == ids[-1 - common]:
            common += 1
        if common >= shortest:
            found.append((common, end))
    if not found:
        return []
    _, end = max(found[:MOST_CANDIDATES])
    text = list(ids)
    while len(text) < len(ids) + count:
        text.append(text[end + len(text) - len(ids)])
    return text[len(ids) :]


@pytest.mark.parametrize("vocab", [2, 4, 20])
def test_what_followed_the_longest_newest_n_gram(vocab):
    random = Random(vocab)
    num_found = 0
    for _ in range(300):
        shortest = random.randint(1, 4)
        longest = shortest + random.choice([0, 1, 3])
        ngrams, ids, indexed = Ngrams(shortest, longest), [], 0
        new = random.choices(range(vocab), k=random.randint(1, 60))
        for _ in range(12):
            ids += new
            budget, count = random.choice([0, 1, 5, 100]), random.randint(1, 9)
            taken = ngrams.read(new, budget)
            assert taken == min(budget, len(ids) - 1 - indexed)
            indexed += taken
            expected = slowly_followed(ids, indexed, shortest, longest, count)
            assert ngrams.following(0, count) == expected
            assert ngrams.following(1, count - 1) == expected[1:]
            num_found += bool(expected)
            new = random.choices(range(vocab), k=random.randint(0, 4))
    assert num_found > 300


def test_examples():
    text = [1, 2, 3, 4, 9, 2, 3, 5, 9, 1, 2, 3]
    assert followed(text, 2, 2, 3) == [5, 9, 1]
    assert followed(text, 2, 3, 3) == [4, 9, 2], "1 2 3 beats the newer 2 3"
    assert followed(text, 4, 5, 3) == []
    assert followed([7, 1, 2, 1, 2], 2, 3, 6) == [1, 2, 1, 2, 1, 2], "goes on as it went on"
    assert followed([5, 5, 5], 1, 1, 4, skip=1) == [5, 5, 5, 5]
    assert followed([5], 1, 3, 4) == followed([5, 6], 3, 3, 4) == []
