"""A browser, and servers over a FakeClient that say what a test wants."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from haast.serve.app import make_app
from haast.serve.server import Listening, Server, bound
from haast.serve.service import Settings, make_service

from ..api.conftest import running  # noqa: F401
from ..fake_client import FakeClient
from .browser import Browser, browsing, why_no_browser


class Site(NamedTuple):
    url: str
    engine: FakeClient


@contextmanager
def site(script, **settings) -> Iterator[Site]:
    """A server whose model says what the script does, on a port, and so an origin, of its own."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    engine = FakeClient(script)
    app = make_app(make_service(engine, Settings(**({"models": ("org/tiny",)} | settings))))
    ready = threading.Event()
    server = Server(app, 1, ready.set)
    with bound(Listening("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=asyncio.run, args=(server.serve(sockets=[listener]),))
        thread.start()
        assert ready.wait(20)
        try:
            yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", engine)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="package")
def window(tmp_path_factory) -> Iterator[Browser]:
    reason = why_no_browser()
    if reason is not None:
        pytest.skip(reason)
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def browser(window) -> Iterator[Browser]:
    """The window; at the end its console must hold no error."""
    window.resize(1000, 800)
    yield window
    window.open("about:blank")
    assert window.log() == []
