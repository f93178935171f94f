"""Guesses over a small network: the same tokens and log-probabilities as without."""

import pytest
import torch

from haast.config import SpeculativeConfig
from haast.engine.intake import sibling_seed

from .harness import FREE, NEVER_AWAITED
from .small_model import ask, expected, load_small, outputs, prompt_of, run

WISH = SpeculativeConfig("ngram", 5, 1, 3)
FEW = {"logit_bias": {7: 30.0, 8: 30.3, 9: 29.8}}
"""Nearly all tokens are one of three, so that text repeats itself, but not always"""
PHRASE = prompt_of(12, 3)


def load(parameters, costs=FREE, **options):
    loaded = load_small(parameters, speculative_config=WISH, max_drafts=12, **options)
    loaded.engine.drafter.costs = costs
    return loaded


def alone(parameters, asks, stop_ids=()):
    return [expected(parameters, one, stop_ids).output_ids for one in asks]


ASKS = [
    ask([*PHRASE, *PHRASE, *PHRASE[:5]], 30),
    ask(prompt_of(60), 40, **FEW),
    ask(prompt_of(130), 30, temperature=1.0, seed=5, **FEW),
    ask(prompt_of(3), 40, temperature=0.7, seed=1 << 40, top_p=0.9, top_k=3, **FEW),
    ask(prompt_of(9), 30, temperature=1.2, seed=9, min_p=0.1, logprobs=2, **FEW),
]


@pytest.fixture(scope="module")
def given(parameters):
    """What each of ASKS gives alone."""
    return alone(parameters, ASKS)


@pytest.mark.parametrize("costs", [FREE, NEVER_AWAITED], ids=["awaited", "beside"])
@pytest.mark.parametrize("max_batch_size", [1, 5])
def test_greedy_and_drawn(parameters, given, max_batch_size, costs):
    loaded = load(parameters, costs, max_batch_size=max_batch_size, num_pages=30)
    assert outputs(run(loaded, ASKS)) == given
    counts = loaded.engine.drafter.counts
    assert counts.accepted > 20 and counts.tokens > counts.accepted
    assert counts.per_position[4] > 0


def test_what_guesses_nothing_runs_beside(parameters):
    """Penalties and constraints, whose rows come before, between and after those with guesses."""
    penalty = {"frequency_penalty": 0.5, "presence_penalty": 0.2}
    asks = [
        ask(prompt_of(20), 30, **FEW, **penalty),
        ASKS[1],
        ask(prompt_of(21), 30, allowed_token_ids=[3, 7, 8]),
        ASKS[2],
        ask(prompt_of(22), 30, temperature=1.0, seed=2, repetition_penalty=1.3),
    ]
    loaded = load(parameters, max_batch_size=5, num_pages=30, max_batch_input_tokens=40)
    assert outputs(run(loaded, asks)) == alone(parameters, asks)
    assert loaded.engine.drafter.counts.accepted > 10


def test_logprobs_and_least_lengths_of_every_token(parameters):
    """A bias that holds off an end is of the row's own position."""
    stop = 8
    asks = [
        ask(prompt_of(60), 40, min_tokens=17, stop_token_ids=(stop,), logprobs=3, **FEW),
        ask(prompt_of(61), 40, min_tokens=40, stop_token_ids=(stop,), logprobs=0, **FEW),
        ask(prompt_of(62), 40, temperature=1.0, seed=3, min_tokens=9, stop_token_ids=(9,), **FEW),
    ]
    loaded = load(parameters, num_pages=30)
    requests = run(loaded, asks)
    assert loaded.engine.drafter.counts.accepted > 10
    assert outputs(requests) == alone(parameters, asks)
    for one, request in zip(asks[:2], requests, strict=False):
        rows = expected(parameters, one).log_probs
        assert len(request.logprobs) == len(request.output_ids)
        for row, token_id, given in zip(rows, request.output_ids, request.logprobs, strict=False):
            assert given.logprob == pytest.approx(float(row[token_id]), abs=1e-4)
            values = torch.tensor([value for _, value in given.top])
            torch.testing.assert_close(values, row.topk(len(values)).values, atol=1e-4, rtol=0)


def test_after_a_preemption(parameters):
    asks = [ask(prompt_of(20 + i), 60, temperature=0.8, seed=i, **FEW) for i in range(3)]
    loaded = load(parameters, num_pages=5, max_batch_size=3)
    requests = run(loaded, asks)
    assert any(request.num_preemptions for request in requests)
    assert loaded.engine.drafter.counts.accepted > 10
    assert outputs(requests) == alone(parameters, asks)


def test_siblings_and_cached_prefixes(parameters):
    one = ask([*PHRASE, *PHRASE, *prompt_of(70)], 50, n=3, temperature=0.8, seed=7, **FEW)
    loaded = load(parameters, max_batch_size=3)
    first = run(loaded, [one])
    seeds = [sibling_seed(7, index) for index in range(3)]
    assert outputs(first) == [expected(parameters, one, seed=seed).output_ids for seed in seeds]
    text = [*one.prompt_ids, *first[0].output_ids]
    turn = ask([*text, 5], 20, **FEW)
    (second,) = run(loaded, [turn])
    assert second.cached_tokens == len(text) // 64 * 64 > len(one.prompt_ids)
    assert outputs([second]) == alone(parameters, [turn])


def test_to_the_last_position(parameters):
    """Guesses beyond it would have no rotation and no page."""
    loaded = load(parameters, num_pages=1, num_window_pages=1, max_batch_size=1)
    one = ask(prompt_of(20), 44, **FEW)
    (request,) = run(loaded, [one])
    assert request.last_position == 63 and loaded.engine.drafter.counts.accepted > 10
    assert outputs([request]) == alone(parameters, [one])
