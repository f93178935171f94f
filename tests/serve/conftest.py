"""Clients of engine processes, and what must hold of all of them."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from haast.config import EngineConfig
from haast.engine.request import SamplingParams
from haast.serve.client import EngineClient, EngineDownError

FAKE = "tests.serve.fake_engine_process"


def params(num_tokens=10, **changes):
    return SamplingParams(**{"temperature": 0, "max_new_tokens": num_tokens} | changes)


def fake(name="fine", *, hang_s=60.0, **wishes):
    """A client of a fake engine; see `fake_engine_process.load`."""
    return EngineClient(EngineConfig(model_path=Path(name), **wishes), hang_s=hang_s, module=FAKE)


def run(work):
    """A coroutine to its end, or the end of patience."""
    return asyncio.run(asyncio.wait_for(work, 30))


async def collect(client, prompt_ids, wanted, **options):
    """The whole of one answer: token ids, and the last Tokens."""
    ids = []
    async for tokens in client.generate(prompt_ids, wanted, **options):
        ids += tokens.token_ids
    return ids, tokens


async def exhaust(news):
    """Take what comes until the end."""
    async for _ in news:
        pass


async def told(tasks):
    """Why calls ended: the same of all of them."""
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(error) for error in errors} == {EngineDownError}
    (text,) = {str(error) for error in errors}
    return text


async def until(holds, patience_s=5.0):
    """Wait for what comes about on its own."""
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, "it never came about"
        await asyncio.sleep(0.01)


def read_or_none(path):
    """A file of a process or thread, which may end meanwhile."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_alive(pid):
    """Whether a process runs: not one that waits to be buried."""
    stat = read_or_none(Path(f"/proc/{pid}/stat"))
    return stat is not None and stat.rsplit(")", 1)[1].split()[0] != "Z"


def children():
    """Living processes that this one started."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    started = [pid for task in tasks for pid in map(int, (read_or_none(task) or "").split())]
    return sorted(pid for pid in started if is_alive(pid))


@pytest.fixture(autouse=True)
def no_child_is_left():
    before = children()
    yield
    assert children() == before
