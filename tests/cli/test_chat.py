"""`haast chat`: one answer to what is piped in, and conversations in a terminal."""

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from haast.cli.chat import plain
from tests.bench.streaming_server import DONE, END, HEAD, chunk, event, scripted, whole

LAUNCH = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "haast", "chat", *sys.argv[1:]])
"""
"""Makes the pseudo terminal one from which Ctrl-C comes"""


def delta(reason=None, **fields) -> bytes:
    return chunk(event(choices=[{"index": 0, "delta": fields, "finish_reason": reason}]))


def answer(*parts, reason="stop"):
    end = delta(reason) + chunk(event(choices=[], usage={})) + chunk(b": ping\n\n" + DONE) + END
    return [HEAD, delta(role="assistant", content=""), *parts, end]


def script(path, body):
    """Says what it was asked last; `wait` never ends."""
    if path == "/v1/models":
        return whole({"data": [{"id": "org/tiny"}]})
    asked = json.loads(body)
    last = asked["messages"][-1]["content"]
    if last == "wait":
        return [HEAD, delta(content="One two"), 60.0]
    if last == "fail":
        return whole({"error": {"message": "it is\nbroken"}}, "503 Service Unavailable")
    if last == "cut":
        return answer(delta(content="Cut"), reason="length")
    said = f"You said {last}, after {len(asked['messages']) - 1}."
    return answer(delta(reasoning="Hm"), delta(reasoning_content="m."), delta(content=said))


def asked_of(played):
    return [json.loads(body) for body in played.bodies if body]


@pytest.fixture
def piped(haast, monkeypatch):
    """piped(text, url, *words) -> Outcome."""

    def run(text, url, *words):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        return haast("chat", "--base-url", url, *words)

    return run


def test_what_is_piped_in_gets_one_plain_answer(piped):
    words = ("--system", "Be brief.", "--reasoning-effort", "high", "--temperature", 0)
    with scripted(script) as (url, played):
        outcome = piped("a\nb\n", f"{url}/v1", *words, "--api-key", "k", "--max-tokens", 9)
    assert outcome == (0, "You said a\nb, after 1.\n", "")
    assert asked_of(played) == [
        {
            "model": "org/tiny",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "a\nb"},
            ],
            "stream": True,
            "reasoning_effort": "high",
            "temperature": 0.0,
            "max_tokens": 9,
        }
    ]
    assert all("authorization: bearer k\r\n" in head.lower() for head in played.heads)


def test_only_what_was_given_is_sent(piped):
    with scripted(script) as (url, played):
        piped("a", url, "--model", "m")
    assert asked_of(played)[0].keys() == {"model", "messages", "stream"}
    assert asked_of(played)[0]["model"] == "m" and len(played.heads) == 1


def test_an_answer_that_is_cut_off_says_so(piped):
    with scripted(script) as (url, _):
        outcome = piped("cut", url)
    assert outcome.code == 0 and outcome.out == "Cut\n"
    assert outcome.err == "(the answer was cut off: it reached the longest that is allowed)\n"


CUT_HEAD = b"HTTP/1.1 500 Error\r\ncontent-length: 9\r\n\r\n"


@pytest.mark.parametrize(
    "items, message",
    [
        (whole({"error": {"message": "no\nmodel"}}, "404 Not Found"), "404: no model"),
        (whole({"detail": "x"}, "500 Error"), '500: {"detail": "x"}'),
        ([HEAD, delta(content="a"), None], "closed the connection in the middle"),
        ([HEAD, delta(content="a") + END], "closed the connection in the middle"),
        ([HEAD, chunk(event(error={"message": "it fell"})) + END], "it fell"),
        ([HEAD, chunk(b"data: {oops\n\n") + END], "this is no server with OpenAI's API"),
        ([None], "cannot reach"),
        ([CUT_HEAD, b"{", None], "the connection broke"),
        ([HEAD, chunk(event(choices=["x"])), END], "does not answer in its JSON"),
        ([HEAD, chunk(event(choices=[{"delta": "x"}])), END], "does not answer in its JSON"),
    ],
)
def test_what_goes_wrong_is_one_line(piped, items, message):
    with scripted(lambda path, body: items) as (url, _):
        outcome = piped("a", url, "--model", "m")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("haast: error: ") and message in outcome.err
    assert outcome.out in ("", "a\n"), "the error stands on a line of its own"


def test_no_server_and_no_question(piped):
    with scripted(script) as (url, _):
        assert "standard input is empty" in piped(" \n", url).err
    assert piped("a", url).err == f"haast: error: cannot reach {url}: Connection refused\n"
    assert "is no URL of a server" in piped("a", "ftp://h").err
    with scripted(lambda path, body: whole({"data": []})) as (url, _):
        assert "names no model; give --model" in piped("a", url).err


def test_control_characters_do_not_reach_a_terminal():
    assert plain("a\x1b[2J\x07b\x9bc\r\n\té\x7f") == "a[2Jbc\n\té"


class Terminal:
    """The program in a pseudo terminal."""

    def __init__(self, *words) -> None:
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm", "INPUTRC": "/dev/null"},
        )
        os.close(theirs)
        self.seen = ""

    def comes(self, pattern: str, patience_s: float) -> str | None:
        """Wait for a text; what came up to its end."""
        deadline = time.monotonic() + patience_s
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.ours], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                return None
            self.seen += os.read(self.ours, 4096).decode(errors="replace")
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def until(self, pattern: str) -> str:
        """As `comes`, of a text that must come."""
        found = self.comes(pattern, 30)
        assert found is not None, f"no {pattern}; there is: {self.seen}"
        return found

    def interrupt_until(self, pattern: str) -> None:
        """Ctrl-C, again if nothing follows: between a prompt and its wait for keys Python keeps the
        signal until the next one.
        """
        for _ in range(10):
            self.type("\x03")
            if self.comes(pattern, 3) is not None:
                return
        raise AssertionError(f"Ctrl-C does nothing; there is: {self.seen}")

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def __enter__(self):
        return self

    def __exit__(self, *_error) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


def test_a_conversation_in_a_terminal():
    with scripted(script) as (url, played), Terminal("--base-url", url) as terminal:
        terminal.until(f"org/tiny at {url}")
        terminal.until("> ")
        terminal.type("one\n")
        shown = terminal.until(r"You said one, after 0\.")
        assert "\x1b[2mHm\x1b[0m\x1b[2mm.\x1b[0m" in shown  # dim
        terminal.until("> ")
        terminal.type("two \\\n")
        terminal.until(r"\.\.\. ")
        terminal.type("lines\n")
        terminal.until(r"You said two \r?\nlines, after 2\.")
        terminal.until("> ")
        terminal.type("/what\n")
        terminal.until("no /what")
        terminal.until("> ")
        terminal.type("/reset\n")
        terminal.until("forgotten")
        terminal.until("> ")
        terminal.type("three\n")
        terminal.until(r"You said three, after 0\.")
        terminal.until("> ")
        terminal.type("fail\n")
        terminal.until("haast: error: 503: it is broken")
        terminal.until("> ")
        terminal.type("four\n")
        terminal.until(r"You said four, after 2\.")  # what failed is forgotten
        terminal.until("> ")
        terminal.type("/exit\n")
        assert terminal.process.wait(20) == 0
    assert [m["role"] for m in asked_of(played)[1]["messages"]] == ["user", "assistant", "user"]


def test_ctrl_c_stops_the_answer_and_not_the_program():
    with (
        scripted(script) as (url, played),
        Terminal("--base-url", url, "--no-reasoning") as terminal,
    ):
        terminal.until("> ")
        terminal.interrupt_until("> ")  # at the prompt it stops nothing
        terminal.type("wait\n")
        terminal.until("One two")
        terminal.interrupt_until("stopped")
        terminal.until("> ")
        terminal.type("next\n")
        assert "Hm" not in terminal.until(r"You said next, after 2\.")
        terminal.until("> ")
        terminal.type("\x04")
        assert terminal.process.wait(20) == 0
    assert asked_of(played)[1]["messages"][1] == {"role": "assistant", "content": "One two"}
