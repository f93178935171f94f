"""Steps that fail, a runner that dies, pages that are lost."""

import pytest

from haast.engine.engine import EngineDeadError
from haast.engine.request import Status

from .harness import Harness

PROMPT = [*range(10)]
ERROR = RuntimeError("planted")


def fail(harness, step, at):
    errors = harness.runner.launch_errors if at == "launch" else harness.runner.wait_errors
    errors[step] = ERROR


@pytest.mark.parametrize("max_in_flight", [1, 2])
@pytest.mark.parametrize("at", ["launch", "wait"])
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_failed_step_ends_its_requests_and_no_others(step, at, max_in_flight):
    harness = Harness(max_batch_size=2, max_in_flight=max_in_flight)
    fail(harness, step, at)
    running = [harness.submit(PROMPT, 9) for _ in range(2)]
    waiting = [harness.submit([7, 8, 9], 4) for _ in range(2)]
    harness.run().check_outputs()
    for request in running:
        assert (request.finish_reason, request.error) == ("error", "RuntimeError: planted")
        assert harness.last[request].token_id is None
    assert [r.finish_reason for r in waiting] == ["length", "length"]
    assert all(r.error is None for r in waiting)


def test_a_step_before_the_failed_launch_still_counts():
    harness = Harness()
    fail(harness, 3, "launch")
    short, long = harness.submit(PROMPT, 2), harness.submit([5, 6], 9)
    harness.run().check_outputs()
    assert short.finish_reason == "length" and len(short.output_ids) == 2
    assert long.finish_reason == "error" and len(long.output_ids) == 2


def test_nothing_that_a_failed_step_wrote_is_found():
    harness = Harness()
    fail(harness, 2, "wait")
    prompt = [*range(30)]
    harness.submit(prompt, 5)
    harness.run()
    again = harness.submit(prompt, 5)
    harness.run().check_outputs()
    assert again.finish_reason == "length" and again.cached_tokens == 0


def test_siblings_go_on_without_a_leader_that_failed():
    harness = Harness(max_in_flight=1)
    fail(harness, 1, "wait")
    leader, *others = harness.submit(PROMPT, 3, n=3)
    harness.run().check_outputs()
    assert [r.finish_reason for r in (leader, *others)] == ["error", "length", "length"]
    assert [r.cached_tokens for r in others] == [0, 8]


@pytest.mark.parametrize("at", ["launch", "wait"])
def test_a_dead_runner_ends_everything(at):
    harness = Harness(max_batch_size=2)
    fail(harness, 3, at)
    harness.runner.alive = False
    requests = [harness.submit(PROMPT, 9) for _ in range(4)]
    requests += harness.submit([4] * 9, 5, n=3)
    with pytest.raises(EngineDeadError) as error:
        harness.run()
    assert str(error.value) == "the engine is dead: RuntimeError: planted"
    harness.take(error.value.outputs)
    assert set(harness.last) == set(requests)
    assert {r.finish_reason for r in requests} == {"error"}
    assert {r.status for r in requests} == {Status.ENDED}
    harness.check_pages()
    for call in (harness.engine.step, lambda: harness.submit(PROMPT, 1)):
        with pytest.raises(EngineDeadError, match="planted") as error:
            call()
        assert error.value.outputs == []


@pytest.mark.parametrize("label", ["full", "sliding"])
@pytest.mark.parametrize("leak", ["held", "lost"])
def test_a_lost_page_is_found_when_idle(label, leak):
    harness = Harness(num_pages=9, num_window_pages=9)
    harness.submit(PROMPT, 3)
    harness.step()
    pool = getattr(harness.kv, label)
    if leak == "held":
        pool.allocate()
        message = f"no request is left, but 1 of 9 pages of the {label} pool are held"
    else:
        pool._free.pop()
        message = f"the {label} pool lost count of its pages: .* are not 9"
    with pytest.raises(RuntimeError, match=message):
        while harness.engine.has_work:
            harness.engine.step()
