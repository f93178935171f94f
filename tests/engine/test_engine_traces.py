"""Random traces: whatever runs beside a request, it gets what it would get alone."""

from collections import Counter
from random import Random

import pytest

from haast.engine.request import RequestError

from .harness import FREE, NEVER_AWAITED, Harness
from .oracle_runner import PAGE_SIZE, VOCAB

NUM_BLOCKS = 20
TRACES_PER_BLOCK = 500
MAX_LENGTH = 48


def random_guesses(random, spare_tokens):
    """Options of a Harness: half of them guess, if a step has tokens to spare for that."""
    if not spare_tokens or random.random() < 0.5:
        return {}
    shortest = random.choice([1, 1, 2, 3])
    lookup = (random.randint(1, 5), shortest, shortest + random.choice([0, 1, 3]))
    costs = random.choice([FREE, NEVER_AWAITED])
    return {"lookup": lookup, "max_drafts": random.randint(1, spare_tokens), "costs": costs}


def random_harness(random):
    batch, spare_tokens = random.randint(1, 4), random.choice([0, 1, 3, 8, 40])
    return Harness(
        num_pages=random.choice([4, 6, 8, 10, 14, 40]),
        num_window_pages=random.choice([3, 4, 5, 6, 8, 12, 40]),
        seed=random.random(),
        window=random.choice([1, 4, 4, 6, 6, 9]),
        is_prefix_caching=random.random() < 0.75,
        max_in_flight=random.choice([1, 2, 2]),
        stop_ids=random.sample(range(VOCAB), 2),
        max_length=MAX_LENGTH,
        max_batch_size=batch,
        max_batch_input_tokens=batch + spare_tokens,
        enable_in_flight_batching=random.random() < 0.7,
        **random_guesses(random, spare_tokens),
    )


def random_submit(random, harness, stems):
    """A request that may share a prefix with others; refused only if its pages cannot fit."""
    stem = random.choice(stems)
    prompt = stem[: random.randint(0, len(stem))]
    prompt = prompt + random.choices(range(VOCAB), k=random.randint(not prompt, 5))
    if harness.requests and random.random() < 0.2:  # another turn of a conversation
        before = random.choice(harness.requests)
        prompt = [*before.prompt_ids, *before.output_ids, *prompt[:2]][: MAX_LENGTH - 8]
    num_tokens = random.choice([1, 2, 4, 8, 12, 20])
    num_tokens = min(num_tokens, MAX_LENGTH - len(prompt))
    try:
        harness.submit(
            prompt,
            num_tokens,
            priority=random.choice([0, 0, 0, 1, -1]),
            salt=random.choice([None, None, None, "a", "b"]),
            n=random.choice([1, 1, 1, 1, 2, 3]),
            seed=random.randint(0, 7),
            stop_token_ids=random.sample(range(VOCAB), random.choice([0, 0, 3])),
            ignore_eos=random.random() < 0.3,
            min_tokens=random.randint(0, num_tokens) if random.random() < 0.3 else 0,
            logprobs=random.choice([None, None, None, 0, 2]),
        )
    except RequestError:
        kv = harness.kv
        pages = -(-(len(prompt) + num_tokens - 1) // PAGE_SIZE)
        assert pages > kv.full.num_pages or min(pages, kv.window_span) > kv.sliding.num_pages


def add_fault(random, runner):
    """One step raises, when it is launched or when its result is waited for."""
    errors = random.choice([runner.launch_errors, runner.wait_errors])
    errors[random.randint(1, 20)] = RuntimeError("planted")


def run_trace(seed):
    random = Random(seed)
    harness = random_harness(random)
    if random.random() < 0.15:
        add_fault(random, harness.runner)
    stems = [random.choices(range(VOCAB), k=random.randint(4, 20)) for _ in range(2)]
    for _ in range(random.randint(2, 6)):
        random_submit(random, harness, stems)
        for _ in range(random.choice([0, 0, 1, 3, 10])):
            if harness.engine.has_work:
                harness.step()
        if harness.requests and random.random() < 0.2:
            harness.cancel(random.choice(harness.requests))
    harness.run().check_outputs()
    limits, drafter = harness.engine.limits, harness.engine.drafter
    max_drafts = 0 if drafter is None else drafter.max_drafts
    assert harness.runner.max_rows <= limits.max_batch_size + max_drafts
    assert harness.runner.max_tokens <= limits.max_batch_input_tokens
    assert limits.enable_in_flight_batching or not harness.runner.num_mixed
    return harness


@pytest.mark.parametrize("block", range(NUM_BLOCKS))
def test_every_request_gets_what_it_would_get_alone(block):
    seen = Counter()
    for index in range(TRACES_PER_BLOCK):
        seed = block * TRACES_PER_BLOCK + index
        try:
            harness = run_trace(seed)
        except BaseException as error:
            error.add_note(f"trace {seed}")
            raise
        seen["preempted"] += any(r.num_preemptions for r in harness.requests)
        seen["hit"] += any(r.cached_tokens for r in harness.requests)
        seen["shared"] += any(r.has_siblings and r.cached_tokens for r in harness.requests)
        seen["overlapped"] += harness.runner.max_unwaited == 2
        seen["mixed"] += harness.runner.num_mixed > 0
        seen["right"] += harness.runner.num_right > 0
        seen["wrong"] += harness.runner.num_guesses > harness.runner.num_right
        seen.update({r.finish_reason for r in harness.requests})
    rare = {what: count for what, count in seen.items() if count < TRACES_PER_BLOCK // 20}
    assert not rare and len(seen) == 11, seen
