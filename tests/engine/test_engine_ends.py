"""The loop: requests that end together, and chunks that give no token."""

from haast.engine.engine import Output
from haast.engine.request import Status

from .harness import Harness
from .oracle_runner import expected_output


def test_requests_that_end_in_the_same_step_all_leave():
    """Regression: the running list was changed while it was walked."""
    harness = Harness(max_batch_input_tokens=40)
    requests = [harness.submit([seed] * 5, 3) for seed in range(4)]
    ended = []
    while harness.engine.has_work:
        ended.append([o.request for o in harness.step() if o.finish_reason])
    assert ended[-1] == requests and not any(ended[:-1]) and len(ended) > 2
    assert {(r.status, r.finish_reason) for r in requests} == {(Status.ENDED, "length")}
    assert harness.scheduler.num_running == 0
    harness.check_outputs().check_idle()


def test_those_of_a_batch_that_reach_a_stop_token_end_at_once():
    """Four of six do so in one step; the others go on."""
    prompts = [[seed, 7, 7, seed] for seed in range(6)]
    seconds = [expected_output(Harness().submit(prompt, 2))[0][1] for prompt in prompts]
    harness = Harness(max_batch_size=6, max_batch_input_tokens=40)
    requests = [
        harness.submit(prompt, 5, stop_token_ids=[second] if seed < 4 else [])
        for seed, (prompt, second) in enumerate(zip(prompts, seconds, strict=True))
    ]
    while requests[0].finish_reason is None:
        outputs = harness.step()
    assert [o.request for o in outputs] == requests
    assert [r.finish_reason for r in requests] == ["stop"] * 4 + [None] * 2
    assert harness.scheduler.decoding == requests[4:]
    harness.run().check_outputs()
    assert [len(r.output_ids) for r in requests] == [2, 2, 2, 2, 5, 5]


def test_a_chunk_amid_a_prompt_gives_no_token():
    harness = Harness(max_batch_input_tokens=4, max_in_flight=1)
    request = harness.submit([*range(10)], 2)
    first, second = expected_output(request)[0]
    expected = [
        [],
        [],
        [Output(request, first, None, None)],
        [Output(request, second, None, "length")],
    ]
    assert [harness.step() for _ in expected] == expected
    assert not harness.engine.has_work and harness.runner.num_computed == 10 + 1
