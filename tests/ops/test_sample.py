"""Sampling: which tokens survive, in which order, and which one a number picks."""

import math

import pytest
import torch

from haast import ops
from haast.ops import Sampling

from .pinned import normal, reference

sample = reference(ops.sample)
PROBS = {3: 0.4, 0: 0.3, 4: 0.2, 1: 0.1}
"""Token -> probability in descending order; token 2 has none."""


def logits_of(probs):
    """[1, 5]; up to a constant, which must not matter."""
    return torch.tensor([[math.log(probs[i]) + 3 if i in probs else -math.inf for i in range(5)]])


def draw(logits, uniform, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
    """Rows of the same logits, one for each random number."""
    rows = len(uniform)
    settings = Sampling(
        temperature=torch.full((rows,), float(temperature)),
        top_k=torch.full((rows,), top_k or logits.shape[1]),
        top_p=torch.full((rows,), float(top_p)),
        min_p=torch.full((rows,), float(min_p)),
        uniform=torch.tensor(uniform, dtype=torch.float64),
    )
    return sample(logits.expand(rows, -1), settings).tolist()


def edges(probs):
    """Numbers just inside both ends of each token's share, and the tokens they must pick."""
    total, start, uniform, tokens = sum(probs.values()), 0.0, [], []
    for token, prob in probs.items():
        uniform += [start / total + 1e-6, (start + prob) / total - 1e-6]
        tokens += [token, token]
        start += prob
    return uniform, tokens


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


@pytest.mark.parametrize("settings, probs", SURVIVORS.values(), ids=SURVIVORS)
def test_a_number_picks_exactly_its_token(settings, probs):
    """Both ends of each survivor's share of the cumulative distribution."""
    uniform, tokens = edges(probs)
    assert draw(logits_of(PROBS), uniform, **settings) == tokens


def test_the_ends_of_the_unit_interval():
    logits = logits_of(PROBS)
    assert draw(logits, [0.0, 1 - 2.0**-32, 1 - 2.0**-53]) == [3, 1, 1]


@pytest.mark.parametrize(
    "settings, left",
    [
        ({"top_p": 0.5}, 2),
        ({"top_p": 0.5000001}, 3),
        ({"top_p": 0.25}, 1),
        ({"top_p": 0.75, "top_k": 2}, 2),
        ({"top_p": 0.5, "top_k": 2}, 1),
        ({"min_p": 1.0}, 4),
    ],
)
def test_exact_boundaries(settings, left):
    """Four equal logits, so that each has exactly 1/4: the token that reaches the mark is last."""
    uniform = [(i + 0.5) / (4 * left) for i in range(4 * left)]
    tokens = [i // 4 for i in range(4 * left)]
    assert draw(torch.zeros(1, 4), uniform, **settings) == tokens


def test_equal_logits_rank_by_token_id():
    """A vocabulary wide enough that an unstable sort would show."""
    logits = torch.zeros(1, 1000)
    assert draw(logits, [0.0, 0.5, 0.9995]) == [0, 500, 999]
    assert draw(logits, [0.5], temperature=0) == [0]
    logits[0, [7, 300, 800]] = 1.0
    assert draw(logits, [0.1, 0.5, 0.9], top_k=3) == [7, 300, 800]


def test_greedy_whatever_the_number():
    logits = normal(1, 300)
    best = logits.argmax().item()
    assert draw(logits, [0.0, 0.3, 1 - 2.0**-53], temperature=0) == [best] * 3
    assert draw(logits, [0.999], temperature=0, top_k=5, top_p=0.1, min_p=0.5) == [best]


def test_a_small_temperature_is_greedy_and_finite():
    logits = normal(1, 300) * 1e3
    assert draw(logits, [0.999], temperature=1e-30) == [logits.argmax().item()]


def test_every_row_has_its_own_settings():
    logits = torch.cat([logits_of(PROBS), logits_of(PROBS), logits_of(PROBS), normal(1, 5)])
    settings = Sampling(
        temperature=torch.tensor([0.0, 1.0, 1.0, 0.0]),
        top_k=torch.tensor([5, 2, 5, 5]),
        top_p=torch.tensor([1.0, 1.0, 0.3, 1.0]),
        min_p=torch.zeros(4),
        uniform=torch.tensor([0.99, 0.99, 0.99, 0.99], dtype=torch.float64),
    )
    assert sample(logits, settings).tolist() == [3, 0, 3, logits[3].argmax().item()]


def test_frequencies():
    """4,000 numbers: each token within four standard deviations of its probability."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(4000, generator=generator, dtype=torch.float64).tolist()
    logits = normal(1, 6) * 1.5
    probs = logits.double().softmax(-1)[0]
    counts = torch.bincount(torch.tensor(draw(logits, uniform)), minlength=6)
    deviation = (4000 * probs * (1 - probs)).sqrt()
    assert ((counts - 4000 * probs).abs() < 4 * deviation).all(), (counts, probs)
    assert counts.min() > 0


def test_cut_tokens_never_come():
    uniform = [i / 997 for i in range(997)]
    assert set(draw(logits_of(PROBS), uniform, top_k=3)) == {3, 0, 4}
    assert set(draw(logits_of(PROBS), uniform)) == set(PROBS)
