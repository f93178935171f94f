"""Child: the engine process and the two sockets to it, in asyncio."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from haast.serve.messages import (
    FromEngine,
    ToEngine,
    from_plain,
    inbox_address,
    outbox_address,
    to_plain,
)

STOP_S = 5.0
"""How long a process may take to leave before it is killed"""
STDERR_S = 0.5
"""How long the standard error of an ended process is read: a child of its own may hold it open"""
QUIET_S = 0.1
"""How long messages of a process that has ended may still come"""
NUM_LOOKS = 4
"""A hang is as many silent looks in a row, so that one look of a server that slept tells nothing"""
TAIL_BYTES = 4096


class Child:
    """A Python process that is told to leave by the end of its standard input.

    Its standard error is passed on, and the last line of it remembered. Use `spawn`.

    num_received  messages that came from it
    """

    def __init__(self) -> None:
        self.num_received = 0
        self._encode = msgspec.msgpack.Encoder(enc_hook=to_plain).encode
        self._decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(
            FromEngine, dec_hook=from_plain
        )
        self._process: asyncio.subprocess.Process
        self._copying: asyncio.Task[None]
        self._tail = b""
        self._folder = Path(tempfile.mkdtemp(prefix="haast-"))
        self._context = zmq.asyncio.Context()
        plain: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(self._context.underlying)
        self._inbox = self._context.socket(zmq.PULL)
        self._outbox = plain.socket(zmq.PUSH)

    @classmethod
    async def spawn(cls, module: str) -> "Child":
        """Run `python -m MODULE FOLDER`, with the modules that are found here found there."""
        child = cls()
        try:
            child._open_sockets()
            child._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # nothing of the current folder is imported unless it is here
                "-m",
                module,
                str(child._folder),
                stdin=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # signals to the server's group are the server's alone
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            )
        except BaseException:
            child._clean_up()
            raise
        child._copying = asyncio.create_task(child._copy_stderr())
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: ToEngine) -> None:
        """Never waits; what a dead process was sent is lost. Raises ValueError, OverflowError or
        TypeError if the message has values that cannot be sent.
        """
        self._outbox.send(self._encode(message), zmq.NOBLOCK)

    async def receive(self) -> FromEngine:
        """The next message."""
        data = await self._inbox.recv()
        self.num_received += 1
        return self._decoder.decode(data)

    async def wait_end(self) -> str:
        """Until the process has ended and its last messages have come; how it did, in one line."""
        status = await self._process.wait()
        await asyncio.wait([self._copying], timeout=STDERR_S)
        count = -1
        while count != self.num_received:
            count = self.num_received
            await asyncio.sleep(QUIET_S)
        lines = self._tail.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if status >= 0:
            how = f"ended with exit status {status}"
        else:
            how = f"was killed by {signal.Signals(-status).name}"
        return f"the engine process (pid {self.pid}) {how}" + (last and f": {last}")

    async def wait_hang(self, is_awaited: Callable[[], bool], hang_s: float) -> None:
        """Until no message has come for so long although one was awaited all the time."""
        count = num_silent = 0
        while num_silent <= NUM_LOOKS:
            await asyncio.sleep(hang_s / NUM_LOOKS)
            is_silent = is_awaited() and self.num_received == count
            num_silent = num_silent + 1 if is_silent else 0
            count = self.num_received

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """Have the process leave, or kill it, and take away what belonged to it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self.kill()
            self._clean_up()
        with suppress(TimeoutError):  # not even SIGKILL ends who waits for a broken device
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        await asyncio.wait([self._copying], timeout=STDERR_S)
        self._copying.cancel()

    def _open_sockets(self) -> None:
        for socket in (self._inbox, self._outbox):
            socket.set_hwm(0)
            socket.linger = 0
        self._inbox.bind(outbox_address(self._folder))
        self._outbox.connect(inbox_address(self._folder))

    def _clean_up(self) -> None:
        self._inbox.close()
        self._outbox.close()
        self._context.term()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _copy_stderr(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(1 << 16):
            self._tail = (self._tail + chunk)[-TAIL_BYTES:]
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
