"""How an engine process ends, and that everybody is told."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from haast.errors import HaastError
from haast.serve.client import EngineDownError

from .conftest import children, collect, fake, is_alive, params, run, told, until
from .fake_engine_process import FAILS_AT, answer

ROOT = Path(__file__).parents[2]


async def reasons(client, num_calls=5, num_tokens=500):
    """Tasks of calls that will not come to their ends, each with tokens so far."""
    calls = [collect(client, [i], params(num_tokens)) for i in range(num_calls)]
    tasks = [asyncio.create_task(call) for call in calls]
    await until(lambda: client.stats().num_running == num_calls)
    return tasks


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_ends_all_calls_and_can_be_started_again(number):
    async def work():
        async with fake("slow", max_length=900) as client:
            tasks = await reasons(client)
            pid = client._child.pid
            os.kill(pid, number)
            started = time.monotonic()
            assert (
                await told(tasks) == f"the engine process (pid {pid}) was killed by {number.name}"
            )
            assert time.monotonic() - started < 2
            assert not client.is_up and number.name in client.stats().dead_because
            assert number.name in await client.wait_down()
            with pytest.raises(EngineDownError, match=number.name):
                await collect(client, [1], params())
            with pytest.raises(EngineDownError, match=number.name):
                await client.probe(1)
            await client.start()
            assert client.is_up and client._child.pid != pid
            assert client.stats() == type(client.stats())()
            assert (await collect(client, [1], params()))[0] == answer([1], 10)

    run(work())


def test_a_crash_is_told_with_its_last_line(capfd):
    async def work():
        async with fake("crashing") as client:
            calls = [asyncio.create_task(collect(client, [i], params(50))) for i in range(3)]
            assert (await told(calls)).endswith("was killed by SIGABRT: something is odd")

    run(work())
    assert "something is odd" in capfd.readouterr().err


def test_a_failed_step_ends_its_requests_alone():
    async def work():
        async with fake("failing", max_batch_size=1) as client:
            calls = [collect(client, [i], params(10)) for i in range(2)]
            (ids, last), (other, _) = await asyncio.gather(*calls)
            assert ids == answer([0], FAILS_AT - 1) and other == answer([1], 10)
            assert (last.finish_reason, last.error) == (
                "error",
                "RuntimeError: illegal memory access",
            )
            assert client.is_up

    run(work())


def test_a_dead_device_ends_all_requests_with_its_error(capfd):
    """Those that were in the engine are told in an orderly way; the process is gone after."""

    async def work():
        async with fake("dying", max_batch_size=1) as client:
            pid = client._child.pid
            results = await asyncio.gather(*(collect(client, [i], params()) for i in range(3)))
            assert [ids for ids, _ in results] == [answer([0], FAILS_AT - 1), [], []]
            assert {(t.finish_reason, t.error) for _, t in results} == {
                ("error", "RuntimeError: illegal memory access")
            }
            reason = "the engine is dead: RuntimeError: illegal memory access"
            assert await client.wait_down() == reason
            with pytest.raises(EngineDownError, match=reason):
                await collect(client, [1], params())
            await until(lambda: not is_alive(pid))
            assert await client._child.wait_end() == (
                f"the engine process (pid {pid}) ended with exit status 1: {reason}"
            )

    run(work())
    assert capfd.readouterr().err.splitlines() == [
        "the engine is dead: RuntimeError: illegal memory access"
    ]


def test_what_cannot_be_loaded(capfd):
    async def work():
        client = fake("unloadable")
        with pytest.raises(HaastError, match="^no such model: unloadable$"):
            await client.start()
        assert not client.is_up and children() == []
        with pytest.raises(EngineDownError, match="exit status 1: RuntimeError: libcuda.so is"):
            await fake("broken").start()

    run(work())
    assert "Traceback" in capfd.readouterr().err


def test_a_process_that_ends_as_soon_as_it_is_ready_is_down():
    async def work():
        client = fake()
        read = client._read

        async def reading(child, ready, progress):
            ready.add_done_callback(lambda _: client._fall("it burnt"))
            await read(child, ready, progress)

        client._read = reading
        with pytest.raises(EngineDownError, match="^it burnt$"):
            await client.start()
        assert not client.is_up and client.stats().dead_because == "it burnt"

    run(work())


def test_a_start_that_is_cancelled_leaves_nothing():
    async def work():
        client, is_loading = fake("endless"), asyncio.Event()
        start = asyncio.create_task(client.start(lambda *_: is_loading.set()))
        await is_loading.wait()
        assert len(children()) == 1 and not client.is_up
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start

    run(work())


def test_a_close_ends_open_calls_and_the_process():
    async def work():
        client = fake("slow", max_length=900)
        await client.start()
        (pid,) = children()
        assert client._child.pid == pid
        folder = client._child._folder
        assert sorted(path.name for path in folder.iterdir()) == ["from-engine", "to-engine"]
        assert folder.stat().st_mode & 0o077 == 0
        tasks = await reasons(client, 2)
        await client.close()
        assert await told(tasks) == "the engine process was closed"
        assert not is_alive(pid) and not folder.exists()
        await client.close()

    run(work())


def test_signals_to_the_group_are_left_to_the_server():
    """Ctrl-C, and what `timeout` or a shell sends: the server may drain first."""

    async def work():
        async with fake("slow") as client:
            call = asyncio.create_task(collect(client, [1], params(30)))
            await until(lambda: client.stats().num_running == 1)
            assert os.getpgid(client._child.pid) not in (os.getpgid(0), os.getpgid(os.getppid()))
            assert (await call)[0] == answer([1], 30)

    run(work())


SERVER = """
import asyncio
from tests.serve.conftest import collect, fake, params

async def work():
    async with fake("slow", max_length=900) as client:
        print(client._child.pid, client._child._folder, flush=True)
        await collect(client, [1], params(800))

asyncio.run(work())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_server_takes_its_engine_along(number):
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, cwd=ROOT)
    with server:
        pid, folder = server.stdout.readline().decode().split()
        pid, folder = int(pid), Path(folder)
        assert is_alive(pid) and folder.is_dir()
        os.kill(server.pid, number)
        server.wait()
    end = time.monotonic() + 5
    while is_alive(pid):
        assert time.monotonic() < end, "an orphan"
        time.sleep(0.01)
    assert not folder.exists()
