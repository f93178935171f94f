"""The load client against the real server."""

import json

import pytest

from haast.__main__ import main


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_every_token_that_is_asked_for_comes(running, capsys, endpoint):
    words = ["--base-url", running.url, "--endpoint", endpoint, "--vocab-size", "4000"]
    words += ["--concurrency", "3", "--requests", "5", "--warmup", "1"]
    with pytest.raises(SystemExit) as ended:
        main(["bench", "serve", *words, "--input", "20", "--output", "9"])
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert not ended.value.code and document["model"] == "haast-tiny"
    row = document["rows"][0]
    assert (row["requests"], row["errors"], row["output_tokens"]) == (5, {}, 45)
    assert row["cached_tokens"] == 0 and 5 <= row["events"] <= 45
    if endpoint == "completions":
        assert row["prompt_tokens"] == 100
