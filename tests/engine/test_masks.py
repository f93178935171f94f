"""Constrained requests: each of their tokens is one that was allowed, and nobody else notices."""

from collections import Counter
from random import Random

import pytest

from haast.engine.masks import Constraint, MaskFiller, mask_of
from haast.engine.request import RequestError

from .harness import Harness
from .oracle_grammar import END, OracleMatcher
from .oracle_runner import VOCAB, expected_output
from .test_engine_traces import random_harness

PROMPT = [3, 1, 4, 1, 5]
NUM_TRACES = 400


def random_constraint(random):
    kind = random.choice(["", "", "end", "done", "stuck", "refuse"])
    wishes = {"grammar": f"{kind} {random.randint(0, 9)}".strip()} if random.random() < 0.8 else {}
    if not wishes or random.random() < 0.2:
        wishes["allowed_token_ids"] = random.sample(range(VOCAB), random.choice([1, 5, 40]))
    return wishes


def random_submit(random, harness):
    wishes = random_constraint(random) if random.random() < 0.6 else {}
    prompt = [2] * random.randint(0, 9) + random.choices(range(VOCAB), k=random.randint(1, 6))
    num_tokens = random.choice([1, 3, 9, 20])
    try:
        harness.submit(
            prompt,
            num_tokens,
            n=random.choice([1, 1, 1, 3]),
            seed=random.randint(0, 3),
            stop_token_ids=[END, random.randrange(VOCAB)],
            min_tokens=random.randint(0, num_tokens) if random.random() < 0.3 else 0,
            logprobs=random.choice([None, None, 2]),
            **wishes,
        )
    except RequestError as error:
        assert "pages of the KV cache" in str(error)


def run_trace(seed):
    random = Random(seed)
    harness = random_harness(random)
    if random.random() < 0.2:
        runner = harness.runner
        errors = random.choice([runner.launch_errors, runner.wait_errors, runner.sample_errors])
        errors[random.randint(1, 12)] = RuntimeError("planted")
    for _ in range(random.randint(2, 6)):
        random_submit(random, harness)
        for _ in range(random.choice([0, 0, 1, 3, 10])):
            if harness.engine.has_work:
                harness.step()
        if harness.requests and random.random() < 0.2:
            harness.cancel(random.choice(harness.requests))
    return harness.run().check_outputs()


@pytest.mark.parametrize("block", range(5))
def test_every_request_gets_what_it_would_get_alone(block):
    seen = Counter()
    for seed in range(block * NUM_TRACES, (block + 1) * NUM_TRACES):
        try:
            harness = run_trace(seed)
        except BaseException as error:
            error.add_note(f"trace {seed}")
            raise
        constrained = [r for r in harness.requests if r.constraint is not None]
        seen["overlapped"] += harness.runner.max_unwaited == 2 and bool(constrained)
        seen["preempted"] += any(r.num_preemptions for r in constrained)
        seen["beside others"] += 0 < len(constrained) < len(harness.requests)
        seen["planted"] += any(r.error == "RuntimeError: planted" for r in constrained)
        seen.update({(r.error or r.finish_reason).partition(":")[0] for r in constrained})
    rare = {what: count for what, count in seen.items() if count < NUM_TRACES // 40}
    assert not rare and len(seen) >= 10, seen


@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_a_grammar_that_ends(max_in_flight):
    harness = Harness(max_in_flight=max_in_flight, stop_ids=[END])
    ended = harness.submit(PROMPT, 20, grammar="end 5")
    done = harness.submit(PROMPT, 20, grammar="done 5", ignore_eos=True, min_tokens=15)
    cut = harness.submit(PROMPT, 3, grammar="end 5")
    harness.run().check_outputs()
    assert [r.finish_reason for r in (ended, done, cut)] == ["stop", "stop", "length"]
    assert len(ended.output_ids) == 6 and ended.output_ids[-1] == END
    assert len(done.output_ids) == 5 and cut.output_ids == ended.output_ids[:3]
    matcher = OracleMatcher("end 5", VOCAB)
    for token_id in ended.output_ids:
        assert matcher.consume(token_id) is None


def test_an_end_that_the_grammar_forces_comes_before_min_tokens():
    harness = Harness(stop_ids=[END])
    request = harness.submit(PROMPT, 20, grammar="end 2", min_tokens=9)
    harness.run().check_outputs()
    assert request.output_ids[2] == END and len(request.output_ids) > 3, "it has no end of its own"


def test_one_that_is_stuck_ends_alone():
    harness = Harness()
    stuck = harness.submit(PROMPT, 9, grammar="stuck 3")
    refused = harness.submit(PROMPT, 9, grammar="refuse 2")
    empty = harness.submit(PROMPT, 9, grammar="done 4", allowed_token_ids=[END])
    free = harness.submit(PROMPT, 9)
    harness.run().check_outputs()
    assert stuck.error == "the grammar is stuck: so it was planted" and len(stuck.output_ids) == 3
    assert refused.error == "the grammar refuses a sampled token: refused on purpose"
    assert empty.error.startswith("no token is left to go on with")
    assert (free.output_ids, free.finish_reason) == expected_output(free)


def test_allowed_tokens_are_the_only_ones():
    harness = Harness()
    requests = [harness.submit([i], 20, allowed_token_ids=[5, 6, 9], seed=i) for i in range(3)]
    harness.run().check_outputs()
    assert {t for r in requests for t in r.output_ids} == {5, 6, 9}
    assert harness.grammars.num_fills == 0


def test_without_constraints_nobody_asks_for_masks():
    harness = Harness()
    harness.submit(PROMPT, 9)
    harness.run()
    constrained = harness.submit(PROMPT, 4, grammar="1")
    harness.run()
    harness.submit(PROMPT, 9)
    num_masked = harness.runner.num_masked
    harness.run()
    assert num_masked == harness.runner.num_masked >= len(constrained.output_ids)


@pytest.mark.parametrize(
    "wishes, message",
    [
        ({"grammar": "nonsense"}, "grammar: nonsense has no number"),
        ({"allowed_token_ids": [1, VOCAB]}, "allowed_token_ids: token id 60 is not in the"),
    ],
)
def test_refusals(wishes, message):
    harness = Harness()
    with pytest.raises(RequestError, match=message):
        harness.submit(PROMPT, 3, **wishes)
    harness.engine.intake.grammars = None
    with pytest.raises(RequestError, match="this engine has no tokenizer"):
        harness.submit(PROMPT, 3, grammar="1")


def test_masks_have_whole_words():
    sizes = [MaskFiller(None, size).size for size in (1, 32, 33, 4096, 201_088)]
    assert sizes == [4, 4, 8, 512, 25_136]
    assert mask_of([64, 0, 3, 3]) == 1 + 8 + (1 << 64) and mask_of([]) == 0
    assert Constraint(None, [1]).allowed == 2 and Constraint(None, None).allowed is None
