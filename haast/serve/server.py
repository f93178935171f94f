"""From wishes to a listening server, and its orderly end."""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from haast.errors import HaastError
from haast.serve.app import make_app
from haast.serve.client import EngineClient, EngineDownError, EngineInfo
from haast.serve.service import Settings, make_service

Progress = Callable[[int, int], None]
_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that none sends into one just closed"""


@dataclass(frozen=True)
class Listening:
    """Where and how to listen.

    shutdown_s  how long open requests may go on after SIGTERM or SIGINT; a second signal ends them
    """

    host: str = "0.0.0.0"
    port: int = 8000
    shutdown_s: int = 30


def run(
    client: EngineClient,
    settings: Settings,
    listening: Listening,
    chat_template: Path | None = None,
    progress: Progress | None = None,
    on_ready: Callable[[EngineInfo], None] = lambda info: None,
) -> None:
    """Load the model, serve until SIGTERM or SIGINT, finish open requests, return.

    progress  called with bytes loaded and bytes in all
    on_ready  called once the server listens
    Raises HaastError if the address is taken or the model cannot be loaded.
    """
    with bound(listening) as listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def serve() -> None:
            signals = _signals()
            try:
                if await _unless(signals, client.start(progress)):
                    app = make_app(make_service(client, settings, chat_template))
                    server = Server(app, listening.shutdown_s, lambda: on_ready(client.info))
                    await _serve(server, signals, client, listener)
            except EngineDownError as error:
                raise HaastError(str(error)) from None
            finally:
                await client.close()

        runner.run(serve())


class Server(uvicorn.Server):
    """Uvicorn that leaves signals to others and tells when it listens."""

    def __init__(
        self, app: Callable[..., Any], shutdown_s: int, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
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
        try:
            listener.bind((listening.host, listening.port))
        except (OSError, OverflowError) as error:
            where = f"{listening.host}:{listening.port}"
            raise HaastError(f"cannot listen on {where}: {error}") from None
        yield listener


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
    client: EngineClient,
    listener: socket.socket,
) -> None:
    """Until a signal, and open requests have ended or another signal; logs the engine's end."""

    async def stop() -> None:
        await signals.get()
        server.should_exit = True
        await signals.get()
        server.force_exit = True

    async def tell() -> None:
        _log.error(
            "the engine is down: %s; requests are answered with 503", await client.wait_down()
        )

    tasks = [asyncio.create_task(stop()), asyncio.create_task(tell())]
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
