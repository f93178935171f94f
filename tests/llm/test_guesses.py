"""The Python API with guesses: the same answers, sooner."""

import pytest

from haast import LLM, HaastError
from haast.engine.drafts import Costs

from .conftest import greedy

KEEN = Costs(row=0.01, idle=0.0, other=0.0, beside=0.0, allowance=1.0)
"""Answers of tests are short: they guess from their first tokens on"""
AGAIN = "Say this once more: A bald eagle is a large eagle of North America that has a white head"


@pytest.fixture(scope="module")
def guessing() -> LLM:
    wish = {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": 4}
    llm = LLM(max_batch_size=4, max_length=640, speculative_config=wish)
    llm.engine.drafter.costs = KEEN
    return llm


def right(llm) -> int:
    return llm.engine.drafter.counts.accepted


@pytest.mark.parametrize(
    "wanted",
    [
        {"temperature": 0, "logprobs": 2},
        {"temperature": 0.7, "seed": 3, "top_p": 0.9, "n": 2},
    ],
    ids=["greedy", "drawn"],
)
def test_the_same_tokens(llm, guessing, wanted):
    params = greedy(max_new_tokens=40, ignore_eos=True, **wanted)
    before = right(guessing)
    plain, given = (each.generate([AGAIN], params) for each in (llm, guessing))
    assert [r.token_ids for r in given] == [r.token_ids for r in plain]
    assert right(guessing) - before > 5
    for ours, theirs in zip(given, plain, strict=True):
        for mine, its in zip(ours.logprobs, theirs.logprobs, strict=True):
            assert mine.logprob == pytest.approx(its.logprob, abs=0.05)


@pytest.mark.parametrize("stop", ["large eagle", "a white head"])
def test_tokens_after_a_stop_string_are_not_given(llm, guessing, opened, stop):
    """Some were right guesses of the step that gave it."""
    wanted = greedy(stop=stop, logprobs=0)
    ((plain,), (given,)) = (each.generate([opened], wanted) for each in (llm, guessing))
    assert (given.text, given.token_ids) == (plain.text, plain.token_ids)
    assert len(given.logprobs) == len(given.token_ids) == given.timings.generated_tokens


def test_a_wish_that_cannot_be():
    with pytest.raises(HaastError, match="speculative_config: method must be ngram; got eagle3"):
        LLM(speculative_config={"method": "eagle3"})
