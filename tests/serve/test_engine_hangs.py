"""An engine process that says nothing: when that is a hang, and what follows."""

import asyncio
import re
import time
from types import SimpleNamespace

import pytest

from haast.serve.child import Child
from haast.serve.client import EngineDownError

from .conftest import collect, fake, is_alive, params, run, told, until
from .fake_engine_process import answer


def test_a_process_that_hangs_is_killed():
    async def work():
        async with fake("hanging", hang_s=0.4) as client:
            pid = client._child.pid
            await asyncio.sleep(0.6)  # with nothing to do silence is no sign
            calls = [collect(client, [i], params()) for i in range(3)]
            text = await told([asyncio.create_task(call) for call in calls])
            assert text == (
                f"the engine process (pid {pid}) hangs: 3 answers are open, but it told nothing "
                "for 0.4 s; it was killed"
            )
            await until(lambda: not is_alive(pid))

    run(work())


def test_a_load_that_hangs_is_given_up():
    async def work():
        client = fake("endless", hang_s=0.04)
        with pytest.raises(EngineDownError) as fallen:
            await client.start()
        assert re.fullmatch(
            r"the engine process \(pid \d+\) hangs: the model is loading, but it told nothing for "
            r"0\.4 s; it was killed",
            str(fallen.value),
        )
        assert client.stats().dead_because == str(fallen.value)

    run(work())


def test_a_hang_is_a_row_of_silent_looks(monkeypatch):
    """m = a message came, - = none did, i = none did and none was awaited, before each look."""
    looks = iter("m----m----i----m-i----" + "-----" + "never")
    child = SimpleNamespace(num_received=0)
    look, slept = "", []

    async def sleep(seconds):
        nonlocal look
        look = next(looks)
        slept.append(seconds)
        child.num_received += look == "m"

    monkeypatch.setattr("haast.serve.child.asyncio", SimpleNamespace(sleep=sleep))
    run(Child.wait_hang(child, lambda: look != "i", 60))
    assert "".join(looks) == "----never" and set(slept) == {15}


def test_a_server_that_sleeps_takes_nobody_for_hung():
    async def work():
        async with fake("slow", hang_s=0.4) as client:
            task = asyncio.create_task(collect(client, [1], params(90)))
            await asyncio.sleep(0.05)
            time.sleep(1)
            assert (await task)[0] == answer([1], 90)

    run(work())
