"""The loop: overlap, ends, cancelling, refusals, the queue."""

import pytest

from haast.engine.engine import Output
from haast.engine.intake import sibling_seed
from haast.engine.request import QueueFullError, RequestError, Status
from haast.errors import HaastError

from .harness import Harness
from .oracle_runner import PAGE_SIZE, VOCAB, WINDOW, expected_output, logprobs_of

PROMPT = [*range(10)]


def watch_loop(harness):
    """What the runner is told, in order."""
    told = []
    launch = harness.runner.launch

    def watched(step):
        number = len([what for what in told if what[0] == "launch"])
        told.append(("launch", number, step.input_ids[:]))
        job = launch(step)
        wait = job.wait

        def watched_wait():
            told.append(("wait", number))
            return wait()

        job.wait = watched_wait
        return job

    harness.runner.launch = watched
    return told


def test_the_next_step_is_launched_before_the_last_one_is_waited_for():
    harness = Harness()
    told = watch_loop(harness)
    harness.submit(PROMPT, 3)
    harness.run().check_outputs()
    assert told == [
        ("launch", 0, []),
        ("launch", 1, [-1]),
        ("wait", 0),
        ("launch", 2, [-1]),
        ("wait", 1),
        ("wait", 2),
    ]


def test_one_step_at_a_time():
    harness = Harness(max_in_flight=1)
    told = watch_loop(harness)
    request = harness.submit(PROMPT, 3)
    harness.run().check_outputs()
    first, second, _ = request.output_ids
    assert told[::2] == [("launch", 0, []), ("launch", 1, [first]), ("launch", 2, [second])]
    assert told[1::2] == [("wait", 0), ("wait", 1), ("wait", 2)]


def test_a_token_is_in_flight_only_from_the_step_just_before():
    """Prefill-only steps come between: by then the host knows the token."""
    harness = Harness(enable_in_flight_batching=False)
    told = watch_loop(harness)
    request = harness.submit(PROMPT, 4)
    harness.step()
    harness.submit([7], 1)
    harness.run().check_outputs()
    launches = [what[2] for what in told if what[0] == "launch"]
    assert launches == [[], [], [request.output_ids[0]], [-1], [-1]]


def test_the_row_too_many_of_one_that_stopped():
    """Its pages are held until that row has run, and nobody is told of its token."""
    harness = Harness()
    stop = expected_output(harness.submit(PROMPT, 9))[0][2]
    harness = Harness(stop_ids=[stop])
    request = harness.submit(PROMPT, 9)
    other = harness.submit([8, 9], 12)
    while request.finish_reason is None:
        outputs = harness.step()
    assert Output(request, stop, None, "stop") in outputs
    assert request.status is Status.ENDED and harness.scheduler.num_leaving == 1
    (step, _), *_ = harness.engine._launched
    assert request in step.requests and request in step.leaving and len(request.pages) == 4
    outputs = harness.step()
    assert [o.request for o in outputs] == [other]
    assert request.pages == [] and harness.scheduler.num_leaving == 0
    assert harness.run().check_outputs().runner.num_computed == 10 + 3 + 2 + 11


def test_one_that_reaches_its_length_has_no_row_too_many():
    harness = Harness()
    harness.submit(PROMPT, 4)
    assert harness.run().check_outputs().runner.num_computed == 10 + 3


@pytest.mark.parametrize("max_in_flight", [1, 2])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4])
def test_cancelling_frees_pages_within_two_steps(steps, max_in_flight):
    harness = Harness(max_batch_input_tokens=6, max_in_flight=max_in_flight)
    request = harness.submit(PROMPT, 50)
    other = harness.submit([1, 2, 3], 50)
    for _ in range(steps):
        harness.step()
    harness.cancel(request)
    harness.engine.cancel([request])
    outputs = harness.step()
    assert [o for o in outputs if o.request is request] == [
        Output(request, None, None, "cancelled")
    ]
    harness.step()
    assert request.pages == [] and request.window_pages == [] and other.pages
    harness.run().check_outputs()


def test_cancelling_all_tells_so_without_another_step():
    harness = Harness()
    requests = [harness.submit(PROMPT, 5) for _ in range(3)]
    for request in requests:
        harness.cancel(request)
    assert harness.engine.has_work
    assert [o.finish_reason for o in harness.step()] == ["cancelled"] * 3
    assert not harness.engine.has_work and harness.runner.num_steps == 0
    harness.check_idle()


def test_ends():
    tokens = expected_output(Harness().submit(PROMPT, 8))[0]
    assert len(set(tokens)) == 8
    harness = Harness(stop_ids=tokens[3:4], max_batch_size=8)
    harness.submit(PROMPT)
    harness.submit(PROMPT, 3)
    harness.submit(PROMPT, 8, ignore_eos=True)
    harness.submit(PROMPT, 8, ignore_eos=True, stop_token_ids=tokens[5:6])
    harness.submit(PROMPT, 8, stop_token_ids=tokens[1:2])
    harness.submit(PROMPT, 8, min_tokens=4)
    harness.submit(PROMPT, 8, min_tokens=5)
    harness.run().check_outputs()
    ended = [(len(r.output_ids), r.finish_reason) for r in harness.requests]
    assert ended == [
        (4, "stop"),
        (3, "length"),
        (8, "length"),
        (6, "stop"),
        (2, "stop"),
        (4, "stop"),
        (8, "length"),
    ]


def test_logprobs():
    harness = Harness()
    request = harness.submit(PROMPT, 3, logprobs=2)
    without = harness.submit(PROMPT, 3)
    harness.run().check_outputs()
    assert request.logprobs == [logprobs_of(token, 2) for token in request.output_ids]
    assert without.logprobs == []


def test_without_a_limit_a_request_fills_max_length():
    harness = Harness(max_length=30)
    request = harness.submit(PROMPT)
    harness.run()
    assert len(request.output_ids) == 20 and request.finish_reason == "length"


REFUSED = {
    "empty": ([], {}, "the prompt has no tokens"),
    "vocabulary": ([1, VOCAB], {}, f"token id {VOCAB} is not in the vocabulary of {VOCAB}"),
    "negative": ([1, -1], {}, f"token id -1 is not in the vocabulary of {VOCAB}"),
    "bias": (
        [1],
        {"logit_bias": {VOCAB: 1.0}},
        f"logit_bias: token id {VOCAB} is not in the vocabulary of {VOCAB}",
    ),
    "stop": (
        [1],
        {"stop_token_ids": [99]},
        f"stop_token_ids: token id 99 is not in the vocabulary of {VOCAB}",
    ),
    "length": (
        [1] * 20,
        {"max_new_tokens": 31},
        "prompt of 20 tokens and 31 new ones exceed max_length 50",
    ),
    "pages": (
        [1] * 20,
        {"max_new_tokens": 14},
        "prompt of 20 tokens and 14 new ones need 9 full pages of the KV cache, which has 8",
    ),
}


@pytest.mark.parametrize("prompt, params, message", REFUSED.values(), ids=REFUSED)
def test_refusals(prompt, params, message):
    harness = Harness(num_pages=8, max_length=50)
    with pytest.raises(RequestError) as error:
        harness.submit(prompt, **params)
    assert str(error.value) == message and isinstance(error.value, HaastError)
    assert not harness.engine.has_work


def test_a_sliding_pool_too_small_for_a_window_is_a_refusal():
    assert Harness().kv.window_span == 3 == (WINDOW + PAGE_SIZE - 2) // PAGE_SIZE + 1
    harness = Harness(num_window_pages=2)
    with pytest.raises(RequestError, match="need 3 sliding pages of the KV cache, which has 2"):
        harness.submit(PROMPT, 5)
    harness.submit(PROMPT[:3], 6)  # 8 positions are computed
    harness.run().check_outputs()


def test_a_request_that_fits_to_the_token():
    harness = Harness(num_pages=8, max_length=33)
    harness.submit([1] * 20, 13)
    harness.run().check_outputs()


def test_the_queue_is_bounded():
    harness = Harness(max_queue_size=3, max_batch_size=1)
    harness.submit(PROMPT, 2)
    harness.submit(PROMPT, 2, n=2)
    with pytest.raises(QueueFullError) as error:
        harness.submit(PROMPT, 2)
    assert str(error.value) == "3 requests wait; 1 more exceed max_queue_size 3"
    harness.step()  # the first one runs
    harness.submit(PROMPT, 2)
    with pytest.raises(QueueFullError):
        harness.submit(PROMPT, 2)
    harness.run().check_outputs()
    with pytest.raises(QueueFullError, match="0 requests wait; 4 more"):
        harness.submit(PROMPT, 2, n=4)
    assert len(harness.last) == 4


def test_seeds_of_siblings():
    assert sibling_seed(7, 0) == 7
    seeds = {sibling_seed(seed, index) for seed in (0, 1, 1 << 63) for index in range(50)}
    assert len(seeds) == 150 and all(0 <= seed < 1 << 64 for seed in seeds)
    assert sibling_seed(7, 1) == sibling_seed(7, 1) != sibling_seed(8, 1)


def test_without_a_seed_each_call_has_its_own():
    harness = Harness()
    first, second = (harness.submit(PROMPT, 2, seed=None) for _ in range(2))
    assert first.seed != second.seed
    harness.run().check_outputs()
