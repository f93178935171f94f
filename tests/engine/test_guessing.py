"""Guesses in the engine: ends amid right ones, cancelling, preemption, cached prefixes."""

from itertools import pairwise, product

import pytest

from haast.engine.engine import Output

from .harness import NEVER_AWAITED, Harness
from .oracle_runner import PAGE_SIZE, VOCAB

LOOKUP = (5, 1, 3)
REPEATING = 7
"""A seed whose text has a period of 3, but for one token in seven"""
PROMPT = [*range(4)]


def guessing(**options):
    return Harness(lookup=LOOKUP, **options)


def watch(harness):
    """Of every step from now on: (request, first position, guesses) of those that have some."""
    seen = []
    launch = harness.runner.launch

    def watched(step):
        seen.append([(step.requests[row], step.starts[row], count) for row, count in step.drafts])
        return launch(step)

    harness.runner.launch = watched
    return seen


@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_fewer_steps_for_the_same_tokens(max_in_flight):
    plain, harness = (
        Harness(max_in_flight=max_in_flight, lookup=lookup) for lookup in (None, LOOKUP)
    )
    for each in (plain, harness):
        each.submit(PROMPT, 60, seed=REPEATING)
        each.run().check_outputs()
    counts = harness.engine.drafter.counts
    assert harness.runner.num_steps < 0.75 * plain.runner.num_steps
    assert counts.accepted == harness.runner.num_right > 15
    assert counts.tokens == harness.runner.num_guesses > counts.accepted
    assert sum(counts.per_position) == counts.accepted
    assert counts.drafts >= counts.per_position[0] >= counts.per_position[1] > 0
    assert counts.per_position[3:] == [0, 0], "guesses end where a page does"


def test_guesses_stay_in_held_pages():
    harness = guessing()
    seen = watch(harness)
    harness.submit(PROMPT, 60, seed=REPEATING)
    harness.run().check_outputs()
    guesses = [(start, count) for rows in seen for _, start, count in rows]
    assert len(guesses) > 5
    assert all(start // PAGE_SIZE == (start + count) // PAGE_SIZE for start, count in guesses)


def test_what_follows_a_token_in_flight_is_guessed_as_well():
    harness = guessing()
    in_flight = []
    launch = harness.runner.launch

    def watched(step):
        in_flight.extend(step.input_rows[row] >= 0 for row, _ in step.drafts)
        return launch(step)

    harness.runner.launch = watched
    harness.submit(PROMPT, 60, seed=REPEATING)
    harness.run().check_outputs()
    assert any(in_flight) and not all(in_flight)


def step_with_right_guesses(**params):
    """A fresh harness after the step that gave several tokens at once, and its outputs."""
    harness = guessing()
    request = harness.submit(PROMPT, 60, seed=REPEATING, **params)
    while len(outputs := harness.step()) < 3:
        assert harness.engine.has_work
    return harness, request, outputs


def test_several_tokens_of_a_step_are_told_in_order():
    harness, request, outputs = step_with_right_guesses(logprobs=1)
    tokens = [output.token_id for output in outputs]
    assert tokens == request.output_ids[-len(tokens) :]
    assert all(output.request is request and output.logprobs for output in outputs)
    harness.run().check_outputs()


@pytest.mark.parametrize("stop", [0, 7, 14])
def test_a_stop_token_among_right_guesses_is_the_last(stop):
    """Whatever was guessed after it: nobody is told, and no page is lost."""
    num_amid = 0
    for min_tokens in range(10, 40):
        harness = guessing()
        request = harness.submit(
            PROMPT, 60, seed=REPEATING, stop_token_ids=[stop], min_tokens=min_tokens
        )
        while request.finish_reason is None:
            outputs = harness.step()
        assert request.finish_reason == "stop" and request.output_ids[-1] == stop
        assert [o.finish_reason for o in outputs] == [None] * (len(outputs) - 1) + ["stop"]
        num_told = len(request.output_ids) - harness.runner.num_steps
        num_amid += harness.runner.num_right > num_told
        harness.run().check_outputs()
    assert num_amid > 2, "no right guess came after the end"


@pytest.mark.parametrize("num_tokens", range(12, 30))
def test_the_last_token_is_never_exceeded(num_tokens):
    harness = guessing(num_pages=(len(PROMPT) + num_tokens - 1 + PAGE_SIZE - 1) // PAGE_SIZE)
    request = harness.submit(PROMPT, num_tokens, seed=REPEATING)
    harness.run().check_outputs()
    assert len(request.output_ids) == num_tokens and request.finish_reason == "length"


@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_cancelling_amid_guesses(max_in_flight):
    """After any number of steps, alone and beside another."""
    for num_steps in range(25):
        harness = guessing(max_in_flight=max_in_flight)
        request = harness.submit(PROMPT, 60, seed=REPEATING)
        other = harness.submit(PROMPT, 40, seed=REPEATING + 4)
        for _ in range(num_steps):
            harness.step()
        harness.cancel(request)
        told = [o for o in harness.step() if o.request is request]
        assert told == [Output(request, None, None, "cancelled")]
        harness.step()
        assert request.pages == [] and request.window_pages == []
        harness.run().check_outputs()
        assert len(other.output_ids) == 40


def test_preempted_while_its_guesses_are_verified():
    """Its right ones are added to its output while it waits; its place is computed again."""
    found = 0
    for num_tokens, num_pages in product(range(4, 40), range(12, 16)):
        harness = guessing(costs=NEVER_AWAITED, max_batch_size=3, num_pages=num_pages)
        first = harness.submit(PROMPT, num_tokens, seed=0)
        second = harness.submit([8, 9, 7], 40, seed=1)
        third = harness.submit(PROMPT, 30, seed=REPEATING)
        preempt = harness.scheduler._preempt

        def watched(request, preempt=preempt):
            nonlocal found
            found += request.num_in_flight > 1
            preempt(request)
            assert request.num_computed == 0

        harness.scheduler._preempt = watched
        harness.run().check_outputs()
        assert {len(first.output_ids), len(second.output_ids)} == {num_tokens, 40}
        assert len(third.output_ids) == 30
    assert found > 4


def test_siblings_guess_each_from_its_own_text():
    harness = guessing(max_batch_size=3)
    requests = harness.submit([*PROMPT, *PROMPT, 1], 30, seed=REPEATING, n=5)
    harness.run().check_outputs()
    assert harness.runner.num_right > 0
    assert all(r.cached_tokens == 2 * PAGE_SIZE for r in requests[1:])


def test_pages_of_right_guesses_are_found_by_the_next_turn():
    """And never those of wrong ones: the oracle would tell other tokens."""
    harness = guessing()
    request = harness.submit(PROMPT, 40, seed=REPEATING)
    harness.run()
    turn = harness.submit([*request.prompt_ids, *request.output_ids, 5], 20, seed=REPEATING)
    harness.run().check_outputs()
    assert turn.cached_tokens == (len(PROMPT) + 39) // PAGE_SIZE * PAGE_SIZE


@pytest.mark.parametrize("errors", ["launch_errors", "wait_errors"])
def test_a_step_with_guesses_that_fails(errors):
    for number in range(5, 20):
        harness = guessing(max_batch_size=2)
        getattr(harness.runner, errors)[number] = RuntimeError("planted")
        harness.submit(PROMPT, 40, seed=REPEATING)
        harness.submit(PROMPT, 40, seed=REPEATING + 4)
        harness.run().check_outputs()
        later = harness.submit(PROMPT, 40, seed=REPEATING)
        harness.run().check_outputs()
        assert later.finish_reason == "length"


def test_constrained_ones_and_those_with_penalties_guess_nothing():
    harness = guessing()
    seen = watch(harness)
    allowed = [*range(0, VOCAB, 2)]
    harness.submit(PROMPT, 40, seed=REPEATING, allowed_token_ids=allowed)
    harness.submit(PROMPT, 40, seed=REPEATING, frequency_penalty=0.5)
    free = harness.submit(PROMPT, 40, seed=REPEATING)
    harness.run().check_outputs()
    assert {request for rows in seen for request, _, _ in rows} == {free}
    assert harness.runner.num_masked == 40


def test_no_more_guesses_than_a_step_has_room_for():
    harness = guessing(max_drafts=2, max_batch_size=4)
    seen = watch(harness)
    for seed in (3, 7, 11, 15):
        harness.submit(PROMPT, 40, seed=seed)
    harness.run().check_outputs()
    totals = [sum(count for _, _, count in rows) for rows in seen]
    assert max(totals) == 2 and harness.runner.max_rows == 6
    assert any(len(rows) > 1 for rows in seen)


def test_a_request_waits_while_others_go_on():
    """Where waiting would cost the others more than the one request gains."""
    harness = guessing(costs=NEVER_AWAITED)
    request = harness.submit(PROMPT, 40, seed=REPEATING)
    other = harness.submit(PROMPT, 40, seed=0, frequency_penalty=0.1)
    launched = []
    launch = harness.runner.launch

    def watched(step):
        launched.append(step)
        return launch(step)

    harness.runner.launch = watched
    harness.run().check_outputs()
    pairs = [(a, b) for a, b in pairwise(launched) if a.drafts and other in b.requests]
    assert len(pairs) > 3 and not any(a.is_awaited for a, _ in pairs)
    assert not any(request in b.requests for _, b in pairs)
