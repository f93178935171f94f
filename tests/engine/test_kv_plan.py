"""Pages of both pools from bytes."""

import pytest

from haast.config import ConfigError
from haast.engine.kv_plan import CACHED_SHARE, KVSizes, plan_kv

PAGE_BYTES, WINDOW_PAGE_BYTES = 3000, 3100
SIZES = KVSizes(PAGE_BYTES, WINDOW_PAGE_BYTES, window=128, page_size=128)


def plan(budget, batch=8, length=4096, tokens=8192, sizes=SIZES):
    return plan_kv(sizes, budget, batch, length, tokens)


def test_plenty():
    made = plan(1 << 40)
    assert made.num_pages == 2 * 8 * 32 and made.num_full_length == 16
    assert made.num_window_pages == 8 * 2 + 64 + 512 // CACHED_SHARE
    assert made.max_batch_size == 8
    assert made.kv_bytes == 512 * PAGE_BYTES + 112 * WINDOW_PAGE_BYTES
    assert made.naive_bytes == 512 * (PAGE_BYTES + WINDOW_PAGE_BYTES)


def test_a_naive_cache_would_take_about_twice_the_memory():
    """gpt-oss-20b: 24 kB a token in twelve layers of either kind, on 50 GB."""
    sizes = KVSizes(128 * 24576, 128 * 24576, window=128, page_size=128)
    made = plan(50 * 10**9, batch=256, length=131072, sizes=sizes)
    assert made.naive_bytes / made.kv_bytes > 1.8
    assert made.num_window_pages >= 256 * 2 + 64 and made.num_full_length == 14
    assert made.kv_bytes <= 50 * 10**9 < made.kv_bytes + 2 * sizes.page_bytes


@pytest.mark.parametrize("batch, tokens", [(1, 1), (8, 8192), (64, 512), (300, 8192)])
@pytest.mark.parametrize("length", [1, 100, 1000, 100_000])
def test_no_budget_is_exceeded_and_little_is_left(batch, tokens, length):
    for budget in range(10_000, 20_000_000, 777_777):
        try:
            made = plan(budget, batch, length, tokens)
        except ConfigError:
            least = SIZES.bytes(SIZES.pages_for(length), 2)
            assert budget < least
            continue
        pages, window_pages = made.num_pages, made.num_window_pages
        assert made.kv_bytes == pages * PAGE_BYTES + window_pages * WINDOW_PAGE_BYTES <= budget
        assert window_pages <= pages and made.num_full_length >= 1
        assert window_pages == pages or window_pages >= made.max_batch_size * 2
        if pages < 2 * made.max_batch_size * SIZES.pages_for(length):
            assert budget - made.kv_bytes < PAGE_BYTES + WINDOW_PAGE_BYTES


def test_short_memory_takes_the_chunks_then_requests():
    """300 requests hold 600 sliding pages, chunks of 8192 tokens 64; 63 are for prefixes."""
    length = 128 * 1000
    needed = [SIZES.bytes(1000, n) for n in (300 * 2 + 64, 300 * 2, 299 * 2, 2)]
    made = [plan(budget, 300, length) for budget in needed]
    assert [m.max_batch_size for m in made] == [300, 300, 299, 1]
    assert [m.num_pages for m in made] == [1000] * 4
    assert [m.num_window_pages - 63 for m in made] == [664, 600, 598, 2]
    without_chunks = plan(needed[0] - 1, 300, length)
    assert without_chunks.num_window_pages == 600 - (-without_chunks.num_pages // CACHED_SHARE)


def test_too_little_is_one_line_that_says_what_to_change():
    budget = SIZES.bytes(32, 2) - 1
    with pytest.raises(ConfigError) as error:
        plan(budget)
    assert str(error.value) == (
        "memory is short: the KV cache of one request of 4096 tokens takes 0.00 GB, but 0.00 GB is "
        "left for it; lower max_length to 3968, raise device_memory_utilization or free memory on "
        "the device"
    )
    assert SIZES.longest(budget) == 3968 and plan(budget, length=3968).num_full_length == 1


@pytest.mark.parametrize("budget", [0, -5, PAGE_BYTES])
def test_nothing_at_all(budget):
    with pytest.raises(ConfigError, match="is left for it; raise device_memory_utilization"):
        plan(budget, length=1)
