"""From wishes to a listening server, and its orderly end."""

import asyncio
import logging
import signal
import socket
from asyncio import FIRST_COMPLETED
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from haast.errors import HaastError
from haast.serve.app import make_app
from haast.serve.client import EngineClient, EngineDownError, EngineInfo
from haast.serve.connection import KEEP_ALIVE_S, Connection, raise_file_limit
from haast.serve.gate import Gate
from haast.serve.keeper import keep
from haast.serve.service import Service, Settings, make_service
from haast.serve.vocabulary import while_loading

Progress = Callable[[int, int], None]
_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
PROBE_S = 30
"""Silence after which the kernel asks an idle client whether it is still there"""
LAST_WORDS_S = 1.0
"""How long a last answer may take to leave"""


@dataclass(frozen=True)
class Listening:
    """Where and how to listen.

    shutdown_s  how long open requests may go on after SIGTERM or SIGINT; a second signal ends them
    stuck_s     how long a client may take nothing of what is sent, or be gone without a word
    """

    host: str = "0.0.0.0"
    port: int = 8000
    shutdown_s: int = 30
    stuck_s: int = 60


def run(
    client: EngineClient,
    settings: Settings,
    listening: Listening,
    chat_template: Path | None = None,
    progress: Progress | None = None,
    on_ready: Callable[[EngineInfo], None] = lambda info: None,
) -> int:
    """Load the model, serve until SIGTERM or SIGINT, finish open requests, return.

    An engine that falls is started again.

    progress  called with bytes loaded and bytes in all
    on_ready  called once the server listens
    returns   exit status: 0, or 128 + signal if a second one cut requests off
    Raises HaastError if the address is taken or the model cannot be loaded.
    """
    raise_file_limit()
    with bound(listening) as listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def serve() -> int:
            signals = _signals()
            try:
                if not await _unless(signals, client.start(while_loading(progress))):
                    return 0
                service = make_service(client, settings, chat_template)
                server = Server(make_app(service), None, lambda: on_ready(client.info))
                return await _serve(server, signals, service, listening, listener)
            except EngineDownError as error:
                raise HaastError(str(error)) from None
            finally:
                await client.close()

        return runner.run(serve())


class Server(uvicorn.Server):
    """Uvicorn that leaves signals to others and tells when it listens.

    shutdown_s  how long it waits for open requests once `should_exit` is set; None = for ever
    """

    def __init__(
        self, app: Callable[..., Any], shutdown_s: int | None, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=shutdown_s,
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def leave(self, serving: "asyncio.Task[None]") -> None:
        """Listen no more; until clients have been sent all that is theirs.

        serving  runs `serve`
        """
        self.should_exit = True
        await asyncio.wait([serving])

    async def end(self, serving: "asyncio.Task[None]") -> None:
        """As `leave`, but who has not taken all after LAST_WORDS_S is cut off."""
        self.should_exit = True
        await asyncio.wait([serving], timeout=LAST_WORDS_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.wait([serving], timeout=LAST_WORDS_S)
        self.force_exit = True
        await serving

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ours would otherwise be raised again at the end, and the exit code not be 0."""
        yield


@contextmanager
def bound(listening: Listening) -> Iterator[socket.socket]:
    """A socket bound before the model is loaded; nobody can connect before it is listened to.

    Raises HaastError if the address is not to be had.
    """
    family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _notice_who_is_gone(listener, listening.stuck_s)
        try:
            listener.bind((listening.host, listening.port))
        except (OSError, OverflowError) as error:
            where = f"{listening.host}:{listening.port}"
            raise HaastError(f"cannot listen on {where}: {error}") from None
        yield listener


def _notice_who_is_gone(listener: socket.socket, stuck_s: int) -> None:
    """Have the kernel end connections to clients that are; accepted sockets inherit this."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, min(PROBE_S, stuck_s)),
        (socket.TCP_KEEPINTVL, max(1, stuck_s // 6)),
        (socket.TCP_USER_TIMEOUT, 1000 * stuck_s),
    ):
        listener.setsockopt(socket.IPPROTO_TCP, option, value)


def _signals() -> "asyncio.Queue[int]":
    """SIGINT and SIGTERM as they come."""
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, signals.put_nowait, number)
    return signals


async def _unless(signals: "asyncio.Queue[int]", work: Awaitable[None]) -> bool:
    """Whether `work` was done before a signal came; it is cancelled otherwise."""
    task = asyncio.ensure_future(work)
    stop = asyncio.create_task(signals.get())
    await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
    is_done = task.done()
    for other in (task, stop):
        other.cancel()
    results = await asyncio.gather(task, stop, return_exceptions=True)
    if is_done and isinstance(results[0], BaseException):
        raise results[0]
    return is_done


async def _serve(
    server: Server,
    signals: "asyncio.Queue[int]",
    service: Service,
    listening: Listening,
    listener: socket.socket,
) -> int:
    """Until a signal, and open requests have ended or been ended; the exit status."""
    client, gate = service.client, service.gate
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    keeping = asyncio.create_task(keep(client, service.metrics.count_restart))

    async def finish() -> None:
        await gate.wait_empty()
        await server.leave(serving)

    draining = asyncio.create_task(_drain(signals, gate, listening.shutdown_s, finish))
    try:
        done, _ = await asyncio.wait([serving, keeping, draining], return_when=FIRST_COMPLETED)
        for task in done:
            task.result()
        status = await draining
    finally:
        for task in (keeping, draining):
            task.cancel()
        await asyncio.gather(keeping, draining, return_exceptions=True)
    await client.close("the server was shut down before the answer had ended")
    await server.end(serving)
    return status


async def _drain(
    signals: "asyncio.Queue[int]",
    gate: Gate,
    shutdown_s: int,
    finish: Callable[[], Coroutine[None, None, None]],
) -> int:
    """Until a signal, and then until there is nothing to finish, time is up, or another signal.

    returns  exit status: 0, or 128 + the other signal as shells tell of who ended by one
    """
    await signals.get()
    gate.close()
    if gate.num_open:
        _log.info("shutting down: %d requests have %d s to end", gate.num_open, shutdown_s)
    again = asyncio.create_task(signals.get())
    tasks = [asyncio.create_task(finish()), again]
    try:
        done, _ = await asyncio.wait(tasks, timeout=shutdown_s, return_when=FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    if gate.num_open:
        _log.warning("%d requests had not ended and were cut off", gate.num_open)
    return 128 + again.result() if again in done else 0
