"""Words that options take."""

import pytest

from .test_printed_config import printed_config


@pytest.mark.parametrize("flag", ["--kv-cache-format", "--kv-cache-dtype"])
@pytest.mark.parametrize(
    "word, held",
    [
        ("bfloat16", "bfloat16"),
        ("auto", "bfloat16"),
        ("float8_e4m3fn", "float8_e4m3fn"),
        ("fp8", "float8_e4m3fn"),
        ("FP8_E4M3", "float8_e4m3fn"),
    ],
)
def test_formats_of_the_cache(haast, flag, word, held):
    rows = printed_config(haast("generate", "--pretty-print-config", flag, word))
    assert rows["kv_cache_format"] == rows["kv format"] == held


def test_another_format_of_the_cache(haast):
    outcome = haast("generate", "--pretty-print-config", "--kv-cache-format", "fp4")
    assert outcome.code != 0 and "'fp4' is not one of" in outcome.err
