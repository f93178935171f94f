"""Wishes about batching and the cache that cannot be granted."""

import pytest

from haast.config import ConfigError, EngineConfig

REFUSED = [
    ({"max_batch_input_tokens": 0}, "max_batch_input_tokens must be at least 1; got 0"),
    ({"max_queue_size": 0}, "max_queue_size must be at least 1; got 0"),
    (
        {"max_batch_input_tokens": 8, "max_batch_size": 9},
        "max_batch_input_tokens must be at least max_batch_size, so that every request can "
        "decode; got 8 and 9",
    ),
    ({"kv_cache_page_size": 16}, "kv_cache_page_size must be 64, 128 or 256; got 16"),
    (
        {"kv_cache_format": "fp8"},
        "kv_cache_format must be bfloat16 or float8_e4m3fn; got fp8",
    ),
    (
        {"shortlist_head": True, "deterministic": True},
        "shortlist_head and deterministic exclude each other: with the latter the head is "
        "computed in another order",
    ),
]


@pytest.mark.parametrize("wishes, message", REFUSED)
def test_refusals(wishes, message):
    with pytest.raises(ConfigError) as error:
        EngineConfig(**wishes)
    assert str(error.value) == message


def test_defaults():
    config = EngineConfig(max_batch_size=8192, kv_cache_page_size=64)
    assert config.max_batch_input_tokens == 8192 and config.max_queue_size == 4096
    assert config.enable_in_flight_batching and config.enable_prefix_caching
