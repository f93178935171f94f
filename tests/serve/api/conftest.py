"""The application over a fake engine, and a real server over haast-tiny."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import openai
import pytest
from starlette.testclient import TestClient

from haast.config import EngineConfig
from haast.serve.app import make_app
from haast.serve.client import EngineClient
from haast.serve.server import Listening, Server, bound
from haast.serve.service import Settings, make_service

from ..fake_client import FakeClient
from .spoken import says, thought_and_said

HELLO = [{"role": "user", "content": "Hello"}]
SCRIPT = says(thought_and_said("Hm.", "Hello there."))


class Api:
    """Posts to the application over a FakeClient."""

    def __init__(self, script=SCRIPT, **settings) -> None:
        self.engine = FakeClient(script)
        self.service = make_service(self.engine, Settings(**({"models": ("tiny",)} | settings)))
        self.http = TestClient(make_app(self.service), raise_server_exceptions=False)

    def post(self, path: str, **body) -> Any:
        return self.http.post(path, content=json.dumps(body))

    def chat(self, **body) -> Any:
        return self.post("/v1/chat/completions", **({"messages": HELLO} | body))

    def complete(self, **body) -> Any:
        return self.post("/v1/completions", **({"prompt": "Hello"} | body))

    def asked(self, path="chat", **body) -> Any:
        """What a request asks of the engine."""
        response = self.chat(**body) if path == "chat" else self.complete(**body)
        assert response.status_code == 200, response.text
        return self.engine.asked[-1]

    def refused(self, path="chat", **body) -> tuple[str, str]:
        """Field and message of a 400; the engine was asked nothing."""
        before = len(self.engine.asked)
        response = self.chat(**body) if path == "chat" else self.complete(**body)
        error = response.json()["error"]
        assert response.status_code == 400, response.text
        assert error["type"] == "invalid_request_error" and len(self.engine.asked) == before
        assert "\n" not in error["message"]
        return error["param"], error["message"]


def events(response) -> list[Any]:
    """Documents of a stream, which must end as OpenAI's do."""
    assert response.headers["content-type"].startswith("text/event-stream")
    parts = response.text.split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2] if part[:1] != ":"]


@pytest.fixture
def api() -> Api:
    return Api()


class Running(NamedTuple):
    url: str
    client: EngineClient
    app: Any


@pytest.fixture(scope="package")
def running() -> Iterator[Running]:
    """A real server over haast-tiny in its own process, on a free port."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with pytest.MonkeyPatch.context() as patch, bound(Listening("127.0.0.1", 0)) as listener:
        patch.setenv("OMP_NUM_THREADS", "1")
        client = EngineClient(EngineConfig(devices="cpu", max_length=640, max_batch_size=4))
        ready, started = threading.Event(), {}

        async def serve() -> None:
            async with client:
                app = make_app(make_service(client, Settings(models=("haast-tiny",))))
                started["server"] = Server(app, 5, ready.set)
                started["app"] = app
                await started["server"].serve(sockets=[listener])

        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        while not ready.wait(0.1):
            assert thread.is_alive()
        yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", client, started["app"])
        started["server"].should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def wait_until(holds, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
