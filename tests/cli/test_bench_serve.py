"""`haast bench serve` from start to end against a server that plays a script."""

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from xml.etree import ElementTree

import pytest

from haast.bench.load.rows import HEADING
from tests.bench.streaming_server import HEAD, scripted, stream, whole


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Client and server share a process here, and have nothing to wait for."""
    monkeypatch.setattr("haast.bench.load.rows.SATURATED_PERCENT", 1e9)


def script(path, body):
    """A server that refuses prompts with token 0."""
    if path == "/v1/models":
        return whole({"data": [{"id": "org/tiny"}]})
    if path == "/version":
        return whole({"detail": "Not Found"}, "404 Not Found")
    asked = json.loads(body)
    if 0 in asked.get("prompt", ()):
        return whole({"error": {"message": "token 0"}}, "400 Bad Request")
    return stream(asked["max_tokens"])


def bench(haast, url, *words):
    sizes = ("--input", 4, "--output", 5)
    return haast("bench", "serve", "--base-url", url, *sizes, *words)


def test_a_row_a_level_and_json_last(haast, tmp_path):
    plot, out = tmp_path / "load.svg", tmp_path / "serve.jsonl"
    words = ("--concurrency", "1,3", "--seed", 7, "--api-key", "secret")
    with scripted(script) as (url, played):
        outcome = bench(haast, url, *words, "--plot", plot, "--out", out)
    assert outcome.code == 0 and outcome.err == ""
    first, *heading, one, three, last = outcome.out.splitlines()
    assert first == f"{url}: org/tiny, 4 tokens in, 5 out" and heading == HEADING.splitlines()
    assert one.split()[:3] == ["1", "8", "0"] and three.split()[:3] == ["3", "12", "0"]
    document = json.loads(last)
    assert (document["bench"], document["server"]) == ("serve", url)
    assert (document["model"], document["server_version"]) == ("org/tiny", None)
    assert (document["endpoint"], document["seed"]) == ("completions", 7)
    assert [row["output_tokens"] for row in document["rows"]] == [40, 60]
    assert out.read_text() == f"{last}\n"
    ElementTree.parse(plot)
    prompts = {tuple(json.loads(body)["prompt"]) for body in played.bodies if body}
    assert len(prompts) == 1 + 8 + 3 + 12  # warm-ups too, none twice
    assert all("Authorization: Bearer secret\r\n" in head for head in played.heads)


def test_another_seed_each_time_and_chat(haast):
    words = ("--concurrency", 1, "--requests", 1, "--warmup", 0, "--endpoint", "chat")
    with scripted(script) as (url, played):
        documents = [
            json.loads(bench(haast, f"{url}/v1", *words, "--model", "m").out.splitlines()[-1])
            for _ in range(2)
        ]
    asked = [json.loads(body) for body in played.bodies if body]
    assert [body["model"] for body in asked] == ["m", "m"]
    assert asked[0]["messages"] != asked[1]["messages"]
    assert documents[0]["seed"] != documents[1]["seed"] and documents[0]["endpoint"] == "chat"


def test_errors_are_counted_and_the_exit_code_is_1(haast):
    words = ("--concurrency", "2", "--requests", 40, "--vocab-size", 6, "--seed", 0)
    with scripted(script) as (url, _):
        outcome = bench(haast, url, *words, "--warmup", 9)
    row = json.loads(outcome.out.splitlines()[-1])["rows"][0]
    assert outcome.code == 1 and set(row["errors"]) == {"400: token 0"}
    assert 0 < row["errors"]["400: token 0"] < 40 and row["requests"] == 40
    assert row["output_tokens"] == 5 * (40 - row["errors"]["400: token 0"])


def test_a_client_that_is_what_is_slow(haast, monkeypatch):
    monkeypatch.setattr("haast.bench.load.rows.SATURATED_PERCENT", 0.0)
    with scripted(script) as (url, _):
        outcome = bench(haast, url, "--concurrency", 1, "--requests", 2, "--warmup", 0)
    assert outcome.code == 0 and outcome.err.startswith("haast: warning: the client needs most")


def test_refusals(haast, tmp_path):
    def refusal(*words):
        outcome = haast("bench", "serve", *words)
        lines = outcome.err.splitlines()
        assert outcome.code == 2 and len(lines) == 1, outcome
        return lines[0].removeprefix("haast: error: ")

    with scripted(lambda path, body: whole({"error": "who?"}, "401 Unauthorized")) as (url, _):
        assert refusal("--base-url", url) == f"{url}/v1/models: 401: who?"
        told = refusal("--base-url", url, "--model", "m", "--concurrency", 2)
        assert told == "all 2 requests failed, one of them with: 401: who?"
    assert refusal("--base-url", url).startswith(f"cannot reach {url}: ")
    assert refusal("--base-url", url, "--model", "m").startswith(f"cannot reach {url}: ")
    assert "is no URL of a server" in refusal("--base-url", "ftp://x")
    assert "must end in" in refusal("--plot", tmp_path / "x.doc")
    with scripted(lambda path, body: [HEAD, None]) as (url, _):
        assert "server closed the connection" in refusal("--base-url", url)


@pytest.mark.parametrize(
    "words", [("--concurrency", "0"), ("--input", 0), ("--output", "x"), ("--timeout", 0)]
)
def test_bad_values(refused, words):
    assert words[0] in refused("bench", "serve", *words)


def test_rows_stay_on_a_terminal_while_a_bar_comes_and_goes():
    ours, theirs = pty.openpty()
    with scripted(script) as (url, _):
        words = ("--base-url", url, "--concurrency", "1,2", "--input", "4", "--output", "5")
        program = [sys.executable, "-m", "haast", "bench", "serve", *words]
        with subprocess.Popen(program, stdout=theirs, stderr=theirs, env=TERMINAL) as process:
            os.close(theirs)
            seen = b""
            with suppress(OSError):  # the terminal ends with the program
                while part := os.read(ours, 4096):
                    seen += part
        os.close(ours)
    assert process.returncode == 0
    assert screen(seen.decode())[3:5] == ["1 8 0", "2 8 0"] and b"at once" in seen


TERMINAL = os.environ | {"TERM": "xterm", "COLUMNS": "220"}


def screen(output: str) -> list[str]:
    """Of each line that stays, the first three words."""
    lines = [""]
    for part in re.split(r"(\r|\n|\x1b\[[\d?]*[A-Za-z])", output):
        if part == "\n":
            lines.append("")
        elif part == "\x1b[1A":
            lines.pop()
        elif part == "\x1b[2K":
            lines[-1] = ""
        elif not part.startswith(("\r", "\x1b")):
            lines[-1] += part
    return [" ".join(line.split()[:3]) for line in lines]
