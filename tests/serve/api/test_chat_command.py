"""`haast chat` against our own server."""

import io
import sys
from contextlib import closing

import pytest

from haast.__main__ import main
from haast.cli.chat_client import ChatClient

from ..web.conftest import site
from .conftest import HELLO, wait_until
from .spoken import message, news


def test_an_answer_of_the_real_server(running, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is a bald eagle?"))
    with pytest.raises(SystemExit) as ended:
        main(["chat", "--base-url", running.url, "--temperature", "0"])
    shown = capsys.readouterr()
    assert not ended.value.code and shown.err == ""
    assert "eagle" in shown.out and shown.out.count("\n") == 1


def test_leaving_an_answer_ends_it_in_the_engine():
    def script(prompt, params):
        first = news(message("final", "One"), params, end=None)
        return [*first, 60.0, *news(message("final", "never"), params)]

    with site(script) as (url, engine):
        with closing(ChatClient(url, None).stream({"messages": HELLO})) as deltas:
            assert next(deltas).kind == "content"
            assert engine.num_open == 1
        wait_until(lambda: engine.num_cancelled)
        assert (engine.num_cancelled, engine.num_open) == (1, 0)
