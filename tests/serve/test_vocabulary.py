"""The server's tokenizer is read once, also by a thread that was sent ahead."""

import threading
from functools import cache

import pytest

from haast.harmony.tokenizer import TokenizerError
from haast.serve import vocabulary
from haast.serve.messages import Found, Progress


@pytest.fixture
def reads(monkeypatch):
    """Paths in the order of their reads, each of which waits for `go`."""
    found, go = [], threading.Event()

    def read(path):
        go.wait(10)
        found.append(path)
        if path == "broken":
            raise TokenizerError(f"cannot read {path}")
        return f"tokenizer of {path}"

    monkeypatch.setattr(vocabulary, "_read", cache(read))
    return found, go


def test_who_asks_meanwhile_waits_for_the_one_sent_ahead(reads):
    found, go = reads
    vocabulary.read_ahead("a")
    answers = []
    asking = [
        threading.Thread(target=lambda: answers.append(vocabulary.tokenizer_of("a")))
        for _ in range(3)
    ]
    for thread in asking:
        thread.start()
    assert found == []
    go.set()
    for thread in asking:
        thread.join(10)
    assert answers == ["tokenizer of a"] * 3 and found == ["a"]


def test_what_is_broken_is_told_to_who_asks(reads):
    found, go = reads
    go.set()
    vocabulary.read_ahead("broken")
    with pytest.raises(TokenizerError, match="cannot read broken"):
        vocabulary.tokenizer_of("broken")


def test_while_loading(reads):
    found, go = reads
    go.set()
    seen = []
    hear = vocabulary.while_loading(lambda *progress: seen.append(progress))
    hear(Progress(1, 2))
    hear(Found("a"))
    assert seen == [(1, 2)] and vocabulary.tokenizer_of("a") == "tokenizer of a"
    vocabulary.while_loading(None)(Progress(1, 2))
    assert found == ["a"]
