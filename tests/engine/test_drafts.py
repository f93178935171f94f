"""How much is guessed, and what that costs, by the account of one request."""

from random import Random

import pytest

from haast.config import SpeculativeConfig
from haast.engine.drafts import Costs, Drafter, Drafts
from haast.engine.request import SamplingParams

from .harness import FREE

COSTS = Costs()
ALONE, BESIDE = COSTS.wait(1, 1), COSTS.wait(64, 1)


def drafts_of(costs, balance=0.0):
    drafts = Drafts(SpeculativeConfig("ngram", 7), costs)
    drafts.balance = balance
    return drafts


def tried(drafts, wait):
    """How many guesses a step would have, paid for."""
    count = drafts.affordable(100, wait)
    if count:
        drafts.pay(count, wait)
    return count


@pytest.mark.parametrize("wait", [ALONE, BESIDE])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.8])
def test_guesses_never_cost_more_than_the_allowance(share, wait):
    """At every step, however they turn out; and with bad luck they become few."""
    random, drafts = Random(1), drafts_of(COSTS)
    spent = won = num_tries = 0
    for step in range(1, 5000):
        drafts.earn()
        if count := tried(drafts, wait):
            num_tries += 1
            spent += wait + count * COSTS.row
            num_right = next((n for n in range(count) if random.random() > share), count)
            won += num_right
            drafts.learn(count, num_right)
        assert spent - won <= COSTS.allowance * step + 1e-6
    assert num_tries >= 5000 * COSTS.allowance / (wait + 7 * COSTS.row)
    if share == 0:
        assert num_tries <= 5000 * COSTS.allowance / (wait + COSTS.row)


def test_luck_is_used_and_a_part_of_it_may_be_lost():
    drafts = drafts_of(COSTS)
    assert tried(drafts, ALONE) == 0
    drafts.balance = ALONE + 1.5 * COSTS.row
    counts = []
    for _ in range(8):
        counts.append(tried(drafts, ALONE))
        drafts.learn(counts[-1], counts[-1])
    assert counts[0] == 1 and counts[-1] == 7 and counts == sorted(counts)
    assert drafts.balance == COSTS.most
    wrong = []
    while count := tried(drafts, ALONE):
        wrong.append(count)
        drafts.learn(count, 0)
    assert wrong[0] == 7 and len(wrong) > 1 and set(wrong[1:]) <= {1, 2}, "few after a miss"
    assert sum(ALONE + count * COSTS.row for count in wrong) <= COSTS.most


def test_no_guess_that_cannot_pay():
    """Beside others a request misses a step: one guess could win no more than that."""
    drafts = drafts_of(COSTS, balance=4.0)
    assert [drafts.affordable(most, BESIDE) for most in (-1, 0, 1, 2, 3, 9)] == [0, 0, 0, 2, 3, 7]
    assert [drafts.affordable(most, ALONE) for most in (0, 1, 2)] == [0, 1, 2]


def test_waiting_costs_the_less_the_more_wait():
    assert COSTS.wait(1, 1) == COSTS.idle and COSTS.wait(8, 1) == BESIDE == COSTS.beside == 1
    assert COSTS.wait(8, 8) == pytest.approx(1 / 8) and COSTS.wait(64, 1) == 1
    assert COSTS.wait(64, 10) == pytest.approx(0.66)


def test_after_a_partly_wrong_draft_the_next_is_as_long_as_was_right_and_one():
    drafts = drafts_of(FREE, balance=50.0)
    for num_right, expected in ((7, 7), (3, 4), (4, 7), (0, 2), (2, 4), (4, 7), (5, 6)):
        drafts.learn(drafts.affordable(7, 0.0), num_right)
        assert drafts.affordable(7, 0.0) == expected
    drafts.learn(1, 1)  # which a page's end cut
    assert drafts.affordable(7, 0.0) == 6


@pytest.mark.parametrize(
    "params, serves",
    [
        ({}, True),
        ({"temperature": 0.0, "top_k": 5, "logit_bias": {3: 1.0}, "min_tokens": 4}, True),
        ({"logprobs": 3, "n": 2, "stop_token_ids": (4,)}, True),
        ({"repetition_penalty": 1.1}, False),
        ({"presence_penalty": 0.1}, False),
        ({"frequency_penalty": -0.1}, False),
        ({"grammar": "x"}, False),
        ({"allowed_token_ids": (4, 5)}, False),
    ],
)
def test_whom_it_serves(params, serves):
    drafter = Drafter(SpeculativeConfig("ngram"), 8, 128)
    assert (drafter.drafts_for(SamplingParams(**params)) is not None) == serves
