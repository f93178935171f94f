"""Sampling: which tokens survive, in which order, and which one a number picks."""

import math

import pytest
import torch

from haast import ops
from haast.bench.small_cases import settings
from haast.ops import Sampling

from .philox_oracle import nearest, positions_around, table
from .pinned import normal, reference

sample = reference(ops.sample)
PROBS = {3: 0.4, 0: 0.3, 4: 0.2, 1: 0.1}
"""Token -> probability in descending order; token 2 has none."""


def logits_of(probs, vocab=5):
    """[1, V]; up to a constant, which must not matter."""
    row = [math.log(probs[i]) + 3 if i in probs else -math.inf for i in range(vocab)]
    return torch.tensor([row])


def draw(logits, positions, **filters):
    """Rows of the same logits, one for each position of seed 0."""
    rows = settings(len(positions), logits.device, **filters)
    chosen = torch.tensor(positions, dtype=torch.int32)
    rows = Sampling(**{**vars(rows), "seed": rows.seed * 0, "position": chosen})
    return sample(logits.expand(len(positions), -1), rows).tolist()


def edges(probs):
    """Positions whose numbers are next to both ends of each token's share, and their tokens."""
    total, start, positions, tokens = sum(probs.values()), 0.0, [], []
    for token in sorted(probs):
        after_start = positions_around(start / total)[1]
        before_end = positions_around((start + probs[token]) / total)[0]
        positions += [after_start, before_end]
        tokens += [token, token]
        start += probs[token]
    return positions, tokens


SURVIVORS = {
    "all": ({}, PROBS),
    "top_k 3": ({"top_k": 3}, {3: 0.4, 0: 0.3, 4: 0.2}),
    "top_k 1": ({"top_k": 1}, {3: 1.0}),
    "top_p just below the first": ({"top_p": 0.39}, {3: 1.0}),
    "top_p just above the first": ({"top_p": 0.41}, {3: 0.4, 0: 0.3}),
    "top_p just below two": ({"top_p": 0.69}, {3: 0.4, 0: 0.3}),
    "top_p just above two": ({"top_p": 0.71}, {3: 0.4, 0: 0.3, 4: 0.2}),
    "top_p just above three": ({"top_p": 0.91}, PROBS),
    "tiny top_p": ({"top_p": 1e-9}, {3: 1.0}),
    "top_p that is 0 in fp32": ({"top_p": 1e-46}, {3: 1.0}),
    "min_p just above the last": ({"min_p": 0.26}, {3: 0.4, 0: 0.3, 4: 0.2}),
    "min_p just below the last": ({"min_p": 0.24}, PROBS),
    "min_p just above the second": ({"min_p": 0.76}, {3: 1.0}),
    "min_p 1": ({"min_p": 1.0}, {3: 1.0}),
    "top_p of what top_k left": ({"top_k": 2, "top_p": 0.58}, {3: 0.4, 0: 0.3}),
    "top_p of what top_k left, below": ({"top_k": 2, "top_p": 0.56}, {3: 1.0}),
    "top_k and less top_p": ({"top_k": 3, "top_p": 0.44}, {3: 1.0}),
    "temperature 1/2": ({"temperature": 0.5}, {3: 0.16, 0: 0.09, 4: 0.04, 1: 0.01}),
    "temperature before top_p": ({"temperature": 0.5, "top_p": 0.53}, {3: 1.0}),
    "temperature before min_p": ({"temperature": 0.5, "min_p": 0.3}, {3: 0.16, 0: 0.09}),
    "temperature 2": ({"temperature": 2.0, "top_k": 2}, {3: 0.4**0.5, 0: 0.3**0.5}),
}


@pytest.mark.parametrize("filters, probs", SURVIVORS.values(), ids=SURVIVORS)
def test_a_number_picks_exactly_its_token(filters, probs):
    """Both ends of each survivor's share of the cumulative distribution over token ids."""
    positions, tokens = edges(probs)
    assert draw(logits_of(PROBS), positions, **filters) == tokens


def test_the_ends_of_the_unit_interval():
    _, positions = table()
    ends = [int(positions[0]), int(positions[-1])]
    assert draw(logits_of(PROBS), ends) == [0, 4]


@pytest.mark.parametrize(
    "filters, left",
    [
        ({"top_p": 0.5}, 2),
        ({"top_p": 0.5000001}, 3),
        ({"top_p": 0.25}, 1),
        ({"top_p": 0.75, "top_k": 2}, 2),
        ({"top_p": 0.5, "top_k": 2}, 1),
        ({"min_p": 1.0}, 4),
    ],
)
def test_exact_boundaries(filters, left):
    """Four equal logits, so that each has exactly 1/4: the token that reaches the mark is last."""
    positions = [nearest((i + 0.5) / (4 * left)) for i in range(4 * left)]
    tokens = [i // 4 for i in range(4 * left)]
    assert draw(torch.zeros(1, 4), positions, **filters) == tokens


def test_equal_logits_rank_by_token_id():
    """A vocabulary wide enough that an unstable sort would show."""
    logits = torch.zeros(1, 1000)
    numbers = [nearest(u) for u in (0.0004, 0.5004, 0.9996)]
    assert draw(logits, numbers) == [0, 500, 999]
    assert draw(logits, [1], temperature=0) == [0]
    assert draw(logits, numbers, top_k=2) == [0, 1, 1]
    logits[0, [7, 300, 800, 900]] = 1.0
    assert draw(logits, [nearest(u) for u in (0.1, 0.5, 0.9)], top_k=3) == [7, 300, 800]


def test_greedy_whatever_the_number():
    logits = normal(1, 300)
    best = logits.argmax().item()
    assert draw(logits, [0, 1, 2], temperature=0) == [best] * 3
    assert draw(logits, [3], temperature=0, top_k=5, top_p=0.1, min_p=0.5) == [best]


def test_a_small_temperature_is_greedy_and_finite():
    logits = normal(1, 300) * 1e3
    assert draw(logits, [5], temperature=1e-30) == [logits.argmax().item()]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_odd_numbers(temperature):
    """NaN never comes, +inf always; a row of -inf alone gives token 0."""
    nan, inf = math.nan, math.inf
    rows = torch.tensor([[nan, 1.0, nan], [-inf, inf, 3.0], [-inf, -inf, -inf], [nan, -inf, nan]])
    filters = settings(4, rows.device, temperature=temperature)
    assert sample(rows, filters).tolist() == [1, 1, 0, 0]
    assert sample(rows.bfloat16(), filters).tolist() == [1, 1, 0, 0]


def test_one_token():
    assert draw(torch.tensor([[-3.0]]), [0, 1], top_p=0.5) == [0, 0]


def test_every_row_has_its_own_settings():
    logits = torch.cat([logits_of(PROBS), logits_of(PROBS), logits_of(PROBS), normal(1, 5)])
    rows = Sampling(
        temperature=torch.tensor([0.0, 1.0, 1.0, 0.0]),
        top_k=torch.tensor([5, 2, 5, 5], dtype=torch.int32),
        top_p=torch.tensor([1.0, 1.0, 0.3, 1.0]),
        min_p=torch.zeros(4),
        seed=torch.zeros(4, dtype=torch.int64),
        position=torch.tensor([nearest(0.01)] * 4, dtype=torch.int32),
    )
    assert sample(logits, rows).tolist() == [3, 0, 3, logits[3].argmax().item()]


FILTERS = [{}, {"top_k": 4}, {"top_p": 0.7}, {"min_p": 0.2}, {"top_k": 5, "top_p": 0.9}]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_frequencies(filters):
    """Chi-square of 20,000 draws over six tokens, against probabilities filtered by hand."""
    logits = normal(1, 6) * 1.5
    probs = logits.double().softmax(-1)[0]
    order = probs.argsort(descending=True).tolist()[: filters.get("top_k", 6)]
    before, kept = 0.0, torch.zeros(6, dtype=torch.float64)
    for token in order:
        share = probs[token] / probs[order].sum()
        if before < filters.get("top_p", 1.0):
            kept[token] = probs[token] * (probs[token] >= filters.get("min_p", 0) * probs.max())
        before += share
    expected = kept / kept.sum() * 20_000
    counts = torch.bincount(torch.tensor(draw(logits, list(range(20_000)), **filters)), minlength=6)
    assert counts[expected == 0].sum() == 0
    cells = expected > 0
    chi_square = ((counts - expected)[cells] ** 2 / expected[cells]).sum()
    assert chi_square < 25, (counts, expected)  # 5 degrees of freedom: one in 7,000


def test_a_row_does_not_depend_on_the_batch():
    logits = normal(9, 500) * 2
    rows = settings(9, logits.device, temperature=0.8, top_k=50, top_p=0.9)
    together = sample(logits, rows).tolist()
    for i in range(9):
        alone = Sampling(**{name: value[i : i + 1] for name, value in vars(rows).items()})
        assert sample(logits[i : i + 1], alone).tolist() == together[i : i + 1]


def test_streams_differ_by_seed_and_by_position():
    logits = torch.zeros(40, 100_000)
    rows = settings(40, logits.device)
    by_seed = sample(logits, rows).tolist()
    positions = torch.arange(40, dtype=torch.int32)
    by_position = sample(
        logits, Sampling(**{**vars(rows), "seed": rows.seed * 0, "position": positions})
    ).tolist()
    assert len({*by_seed}) == 40 and len({*by_position}) == 40
