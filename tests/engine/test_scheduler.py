"""Order, budgets, preemption: who runs in which step."""

import pytest

from haast.engine.request import Status

from .harness import Harness
from .oracle_runner import PAGE_SIZE, expected_output


def watch(harness):
    """Every step from now on as (index of the request, first position, tokens) of its rows."""
    steps = []
    launch = harness.runner.launch

    def watched(step):
        rows = zip(step.requests, step.starts, step.counts, strict=True)
        steps.append([(harness.requests.index(r), start, count) for r, start, count in rows])
        return launch(step)

    harness.runner.launch = watched
    return steps


def prompt(size, first=0):
    return [(first + i) % 60 for i in range(size)]


def test_decodes_first_then_chunks_of_several():
    harness = Harness(max_batch_input_tokens=8)
    steps = watch(harness)
    harness.submit(prompt(3), 4)
    harness.submit(prompt(9, 10), 2)
    harness.submit(prompt(4, 20), 2)
    harness.run().check_outputs()
    assert steps == [
        [(0, 0, 3), (1, 0, 5)],
        [(0, 3, 1), (1, 5, 4), (2, 0, 3)],
        [(0, 4, 1), (1, 9, 1), (2, 3, 1)],
        [(0, 5, 1), (2, 4, 1)],
    ]


def test_decodes_and_prefills_apart():
    harness = Harness(max_batch_input_tokens=8, enable_in_flight_batching=False)
    steps = watch(harness)
    harness.submit(prompt(3), 3)
    harness.submit(prompt(9, 10), 2)
    harness.step()
    harness.submit(prompt(4, 20), 2)
    harness.run().check_outputs()
    assert steps == [
        [(0, 0, 3), (1, 0, 5)],
        [(1, 5, 4), (2, 0, 4)],
        [(0, 3, 1), (1, 9, 1), (2, 4, 1)],
        [(0, 4, 1)],
    ]


def test_a_step_takes_no_more_requests_than_rows():
    harness = Harness(max_batch_size=2)
    requests = [harness.submit(prompt(3, 7 * i), 4) for i in range(5)]
    harness.step()
    assert [r.status for r in requests[:3]] == [Status.DECODING, Status.DECODING, Status.WAITING]
    harness.run().check_outputs()
    assert harness.runner.max_rows == 2


def ends(harness):
    """Requests in the order in which they end."""
    harness.run().check_outputs()
    return [harness.requests.index(r) for r in harness.last]


def test_arrival_order_within_a_priority():
    harness = Harness(max_batch_size=1)
    for i, priority in enumerate([0, 5, 0, -1, 5]):
        harness.submit(prompt(4, i), 2, priority=priority)
    assert ends(harness) == [3, 0, 2, 1, 4]


def test_short_prompts_do_not_overtake_a_long_one():
    """The long one gets all tokens of each step that decodes leave until its prompt is read."""
    harness = Harness(max_batch_input_tokens=8, max_batch_size=3)
    steps = watch(harness)
    harness.submit(prompt(3), 30)
    harness.submit(prompt(40, 5), 1)
    for i in range(20):
        harness.submit(prompt(2, 3 * i), 1)
    harness.run().check_outputs()
    rows = [row for step in steps for row in step]
    of_long = [count for index, _, count in rows if index == 1]
    assert of_long == [5, 7, 7, 7, 7, 7]
    assert [index for index, _, _ in rows if index > 1] == [*range(2, 22)]


def test_a_long_prompt_does_not_stop_decodes():
    harness = Harness(max_batch_input_tokens=8)
    steps = watch(harness)
    harness.submit(prompt(3), 9)
    harness.submit(prompt(50, 5), 1)
    harness.run().check_outputs()
    assert [step[0] for step in steps[1:9]] == [(0, 3 + i, 1) for i in range(8)]


def test_a_better_priority_gets_the_tokens_of_a_chunked_prompt():
    harness = Harness(max_batch_input_tokens=8)
    steps = watch(harness)
    harness.submit(prompt(40), 1)
    harness.step()
    harness.submit(prompt(10, 50), 1, priority=-1)
    harness.run().check_outputs()
    assert steps[1:3] == [[(1, 0, 8)], [(1, 8, 2), (0, 8, 6)]]


def preempting(priorities, **options):
    """Four requests of 4 + 12 tokens, 4 pages each, in 10 pages: they can all start."""
    harness = Harness(num_pages=10, max_batch_size=4, **options)
    for i, priority in enumerate(priorities):
        harness.submit(prompt(4, 10 * i), 12, priority=priority)
    return harness


@pytest.mark.parametrize("is_prefix_caching", [True, False])
@pytest.mark.parametrize("max_in_flight", [1, 2])
@pytest.mark.parametrize(
    "priorities, order", [((0, 0, 0), [0, 1, 2]), ((1, 0, 0), [1, 2, 0]), ((0, 2, 1), [0, 2, 1])]
)
def test_the_last_in_order_is_preempted(priorities, order, is_prefix_caching, max_in_flight):
    harness = preempting(
        priorities, is_prefix_caching=is_prefix_caching, max_in_flight=max_in_flight
    )
    assert ends(harness) == order
    counts = [harness.requests[i].num_preemptions for i in order]
    assert counts[:2] == [0, 0] and counts[2] > 0
    assert harness.scheduler.num_preemptions == sum(counts)


def test_a_preempted_request_finds_its_own_pages_again():
    """It loses its pages, but until another needs them it is computed no second time."""
    harness = Harness(num_pages=7, max_batch_size=2)
    harness.submit(prompt(11), 10)
    harness.submit(prompt(11, 30), 4)
    harness.run().check_outputs()
    recomputed = harness.runner.num_computed - (11 + 9) - (11 + 3)
    assert harness.requests[1].num_preemptions == 1
    assert 0 < recomputed <= PAGE_SIZE + 1


def test_a_preempted_request_goes_before_those_that_wait():
    harness = preempting((0, 0, 0))
    waiting = [harness.submit(prompt(4, 40 + i), 12) for i in range(3)]
    assert ends(harness) == [*range(6)]
    assert all(r.num_preemptions == 0 for r in waiting[2:])


@pytest.mark.parametrize("max_in_flight", [1, 2])
@pytest.mark.parametrize("num_window_pages", [3, 4, 5])
@pytest.mark.parametrize("in_flight_batching", [True, False])
def test_smallest_pools_lose_and_block_nobody(num_window_pages, max_in_flight, in_flight_batching):
    """Each request fits alone, to the page."""
    harness = Harness(
        num_pages=6,
        num_window_pages=num_window_pages,
        max_in_flight=max_in_flight,
        enable_in_flight_batching=in_flight_batching,
    )
    for i in range(8):
        harness.submit(prompt(13, 5 * i), 12)
    assert sorted(ends(harness)) == [*range(8)]
    assert harness.requests[0].num_preemptions == 0


def test_pages_of_the_window_are_all_that_a_long_request_holds():
    harness = Harness(num_window_pages=3, max_batch_size=1)
    harness.submit(prompt(60), 100)
    harness.run().check_outputs()


def test_one_admission_a_page_each_is_left_for_those_that_run():
    harness = Harness(num_pages=6, max_batch_size=4)
    first = harness.submit(prompt(8), 2)
    second = harness.submit(prompt(12, 20), 2)
    third = harness.submit(prompt(2, 40), 2)
    harness.step()
    assert (first.status, second.status) == (Status.DECODING, Status.DECODING)
    assert third.status is Status.WAITING, "a page is left, but two run"
    harness.run().check_outputs()


@pytest.mark.parametrize("num_pages, size", [(6, 5), (7, 9)])
def test_who_ended_gives_its_pages_before_another_loses_them(num_pages, size):
    """The second needs a page while the first, which stopped, has a row too many in flight."""
    stop = expected_output(Harness().submit(prompt(10), 9))[0][2]
    harness = Harness(num_pages=num_pages, stop_ids=[stop])
    harness.submit(prompt(10), 9)
    harness.submit(prompt(size, 20), 12, ignore_eos=True)
    harness.run().check_outputs()
    assert harness.requests[0].finish_reason == "stop"
    assert harness.scheduler.num_preemptions == 0


@pytest.mark.parametrize("num_window_pages", [4, 5, 6, 7])
def test_chunks_leave_the_sliding_pages_that_decodes_need(num_window_pages):
    harness = Harness(num_window_pages=num_window_pages)
    harness.submit(prompt(3), 40)
    harness.step()
    harness.submit(prompt(50), 4)
    harness.run().check_outputs()
    assert harness.scheduler.num_preemptions == 0
