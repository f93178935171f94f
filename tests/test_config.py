"""Wishes about batching and the cache that cannot be granted."""

import pytest

from haast.config import ConfigError, EngineConfig, SpeculativeConfig

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


SPECULATION_REFUSED = [
    ({}, "method is missing; it must be ngram"),
    ({"method": "eagle3", "model": "x"}, "no field 'model'; there are method, num_speculative_"),
    ({"method": "eagle3"}, "method must be ngram; got eagle3"),
    ({"num_speculative_tokens": 0}, "num_speculative_tokens must be a whole number from 1 to 63"),
    ({"num_speculative_tokens": 64}, "num_speculative_tokens must be a whole number from 1 to 63"),
    ({"num_speculative_tokens": None}, "from 1 to 63; got None"),
    ({"num_speculative_tokens": True}, "from 1 to 63; got True"),
    ({"prompt_lookup_max": 2.0}, "prompt_lookup_max must be a whole number from 1 to 63; got 2.0"),
    ({"prompt_lookup_min": "3"}, "prompt_lookup_min must be a whole number from 1 to 63; got '3'"),
    (
        {"prompt_lookup_min": 4, "prompt_lookup_max": 3},
        "prompt_lookup_min 4 exceeds prompt_lookup_max 3",
    ),
]


@pytest.mark.parametrize("fields, message", SPECULATION_REFUSED)
def test_refused_speculation(fields, message):
    with pytest.raises(ConfigError) as error:
        SpeculativeConfig.of({"method": "ngram"} | fields if fields else {})
    assert str(error.value).startswith("speculative_config: ") and message in str(error.value)


@pytest.mark.parametrize(
    "fields, lookup",
    [
        ({}, (3, 5)),
        ({"prompt_lookup_max": 4}, (4, 4)),
        ({"prompt_lookup_min": 2}, (2, 2)),
        ({"prompt_lookup_min": 1, "prompt_lookup_max": 6}, (1, 6)),
    ],
)
def test_lengths_of_n_grams(fields, lookup):
    assert SpeculativeConfig.of({"method": "ngram", **fields}).lookup == lookup
    assert SpeculativeConfig("ngram").num_speculative_tokens == 7
    assert EngineConfig().speculative_config is None
