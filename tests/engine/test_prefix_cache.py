"""What a request finds of those before it, in tokens, and what it must not find."""

import pytest

from .harness import Harness
from .oracle_runner import PAGE_SIZE, WINDOW

PROMPT = [*range(40)]


def cached_after(first, second, *, num_tokens=1, salts=(None, None), **options):
    """Tokens that a second request finds when the first has ended."""
    harness = Harness(**options)
    harness.submit(first, num_tokens, salt=salts[0])
    harness.run()
    request = harness.submit(second, 2, salt=salts[1])
    harness.run().check_outputs()
    return request.cached_tokens


@pytest.mark.parametrize(
    "size, found", [(3, 0), (4, 0), (5, 4), (8, 4), (9, 8), (12, 8), (13, 12), (40, 36)]
)
def test_whole_pages_and_always_a_token_left(size, found):
    assert cached_after(PROMPT, PROMPT[:size]) == found


@pytest.mark.parametrize("common, found", [(0, 0), (3, 0), (4, 4), (7, 4), (8, 8), (39, 36)])
def test_as_far_as_the_tokens_agree(common, found):
    other = [*PROMPT[:common], 59, *PROMPT[common + 1 :], 1, 2]
    assert cached_after(PROMPT, other) == found


def test_the_same_page_after_another_start_is_another():
    assert cached_after(PROMPT, [59, *PROMPT[1:]]) == 0
    assert cached_after([1, 2, 3, 4] * 3, [1, 2, 3, 4] * 2 + [5]) == 8


@pytest.mark.parametrize(
    "salts, found", [((None, None), 36), (("a", "a"), 36), (("a", "b"), 0), ((None, ""), 0)]
)
def test_salts_separate(salts, found):
    assert cached_after(PROMPT, PROMPT, salts=salts) == found


def test_off():
    assert cached_after(PROMPT, PROMPT, is_prefix_caching=False) == 0


def test_generated_tokens_are_found_by_the_next_turn():
    harness = Harness()
    first = harness.submit(PROMPT[:6], 13)
    harness.run()
    turn = [*first.prompt_ids, *first.output_ids, 3]
    second = harness.submit(turn, 2)
    harness.run().check_outputs()
    assert len(turn) == 20 and second.cached_tokens == 16


def test_a_running_prompt_is_found_before_it_has_ended():
    harness = Harness(max_batch_input_tokens=16)
    harness.submit(PROMPT, 30)
    harness.step()
    second = harness.submit(PROMPT[:15], 2)
    harness.run().check_outputs()
    assert second.cached_tokens == 12


def forget(pool, index, harness, request):
    """Evict one of the ended request's pages."""
    page = pool.find(harness.kv.prefixes._key(request, index))
    del pool._cached[page]
    pool._forget_key(page)
    pool._free.append(page)


@pytest.mark.parametrize("gone, found", [((), 36), ((8,), 32), ((7,), 28), ((8, 7, 6), 24)])
def test_where_sliding_pages_are_gone_the_hit_is_shorter(gone, found):
    """Of 36 tokens a window of 6 needs pages 7 and 8; of 32, pages 6 and 7."""
    assert (PAGE_SIZE, WINDOW) == (4, 6)
    harness = Harness()
    first = harness.submit(PROMPT, 1)
    harness.run()
    for index in gone:
        forget(harness.kv.sliding, index, harness, first)
    second = harness.submit(PROMPT, 1)
    harness.run().check_outputs()
    assert second.cached_tokens == found
    third = harness.submit(PROMPT, 1)
    harness.run().check_outputs()
    assert third.cached_tokens == 36, "the second computed and named them again"


def test_where_a_full_page_is_gone_the_hit_ends():
    harness = Harness()
    first = harness.submit(PROMPT, 1)
    harness.run()
    forget(harness.kv.full, 5, harness, first)
    second = harness.submit(PROMPT, 1)
    harness.run().check_outputs()
    assert second.cached_tokens == 20


def test_leaves_are_evicted_before_their_parents():
    harness = Harness(num_pages=12)
    harness.submit(PROMPT, 1)  # 10 pages, all cached afterwards
    harness.run()
    harness.submit([50] * 19, 1, salt="other")  # 5 pages: 2 free ones and the last 3 leaves
    harness.run()
    request = harness.submit(PROMPT, 1)
    harness.run().check_outputs()
    assert request.cached_tokens == 28


def test_keys_cannot_be_computed_outside():
    """Two caches name the same tokens differently."""
    harnesses = [Harness(), Harness()]
    keys = []
    for harness in harnesses:
        request = harness.submit(PROMPT, 1)
        keys.append(harness.kv.prefixes._key(request, 2))
    assert keys[0] != keys[1] and len(keys[0]) == 16


@pytest.mark.parametrize("is_prefix_caching", [True, False])
@pytest.mark.parametrize("budget", [5, 100])
def test_answers_to_one_call_share_their_prompt(is_prefix_caching, budget):
    harness = Harness(
        num_pages=16, is_prefix_caching=is_prefix_caching, max_batch_input_tokens=budget
    )
    requests = harness.submit(PROMPT, 3, n=4)
    assert [r.status.value for r in requests] == ["waiting"] + ["parked"] * 3
    harness.run().check_outputs()
    assert [r.cached_tokens for r in requests] == [0, 36, 36, 36]
    assert harness.runner.num_computed == len(PROMPT) + 3 * 4 + 4 * 2
    assert len({r.seed for r in requests}) == 4 and requests[0].seed == 0
    stranger = harness.submit(PROMPT, 1)
    harness.run().check_outputs()
    assert stranger.cached_tokens == (36 if is_prefix_caching else 0)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_leader_that_is_cancelled_has_a_successor(steps):
    harness = Harness(is_prefix_caching=False, max_batch_input_tokens=8)
    leader, *others = harness.submit(PROMPT, 3, n=3)
    for _ in range(steps):
        harness.step()
    harness.cancel(leader)
    harness.run().check_outputs()
    assert leader.finish_reason == "cancelled"
    assert [r.finish_reason for r in others] == ["length", "length"]
    assert others[1].cached_tokens == 36
