"""EngineClient: the engine process, seen from the server's asyncio loop."""

import asyncio
from array import array
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncGenerator, Callable, Sequence
from math import ceil
from time import monotonic
from typing import Self

import msgspec

from haast.config import EngineConfig
from haast.engine.request import RequestError, SamplingParams
from haast.errors import HaastError
from haast.serve.calls import Call, Calls
from haast.serve.child import Child
from haast.serve.messages import (
    Cancel,
    Dead,
    EngineDownError,
    EngineInfo,
    EngineStats,
    Found,
    Progress,
    Ready,
    Refused,
    Start,
    Stepped,
    Submit,
    Tokens,
    Unloadable,
)
from haast.serve.probe import probe

__all__ = ["EngineClient", "EngineDownError", "EngineInfo", "EngineStats", "Tokens"]
CLOSED = "the engine process was closed"
LOADING_IS_SLOWER = 10
"""How much longer than an engine a file system may be silent"""


class EngineClient:
    """Starts the engine process, runs calls on it and notices when it dies or hangs.

    config   what the engine is to load
    hang_s   seconds without a message, although calls are open, after which it is killed
    module   what runs as the engine process
    info     EngineInfo, once started
    back_at  when one that is down may be up again, by time.monotonic, as far as anyone knows
    An async context: started inside, closed after.
    """

    info: EngineInfo

    def __init__(
        self,
        config: EngineConfig,
        *,
        hang_s: float = 60.0,
        module: str = "haast.serve.engine_process",
    ) -> None:
        self.config = config
        self.hang_s = hang_s
        self.back_at = 0.0
        self._module = module
        self._child: Child | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._calls = Calls()
        self._stats = EngineStats()
        self._down_because: str | None = "the engine process was not started"
        self._is_down = asyncio.Event()
        self._has_token = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_up(self) -> bool:
        """Whether the model is loaded and calls are taken."""
        return self._down_because is None

    async def start(self, hear: Callable[[Found | Progress], None] = lambda message: None) -> None:
        """Load the model in a new process; also after the last one died.

        hear  called with what the process tells while it loads
        Raises HaastError for wishes and files that the user can mend, EngineDownError if the
        process ends.
        """
        await self.close()
        self._down_because = "the engine process is loading"
        self._stats = EngineStats()
        self._is_down.clear()
        self._child = child = await Child.spawn(self._module)
        ready = asyncio.get_running_loop().create_future()
        is_loading = lambda: "" if ready.done() else "the model is loading"
        work = (
            self._read(child, ready, hear),
            self._watch_end(child),
            self._watch_hang(child, self._is_answering, self.hang_s),
            self._watch_hang(child, is_loading, LOADING_IS_SLOWER * self.hang_s),
        )
        self._tasks = [asyncio.create_task(task) for task in work]
        for task in self._tasks:
            task.add_done_callback(self._on_task_end)
        falling = asyncio.create_task(self.wait_down())
        try:
            child.send(Start(self.config))
            await asyncio.wait([ready, falling], return_when=FIRST_COMPLETED)
            if ready.done():
                self.info = ready.result()
            if self._is_down.is_set():
                raise EngineDownError(str(self._down_because))
        except BaseException as error:
            await self.close(str(error) or CLOSED)
            raise
        finally:
            falling.cancel()
        self._down_because = None

    async def close(self, reason: str = CLOSED) -> None:
        """Have the process leave, within seconds; open calls end with EngineDownError, at once."""
        tasks, self._tasks = self._tasks, []
        child, self._child = self._child, None
        for task in tasks:
            task.cancel()
        self._fall(reason)
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            if child is not None:
                await child.stop()

    async def wait_down(self) -> str:
        """Until there is no engine any more; why."""
        await self._is_down.wait()
        return str(self._down_because)

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        salt: str | None = None,
    ) -> AsyncGenerator[Tokens, None]:
        """Yield the news of the params.n answers to a prompt until all have ended.

        Whoever takes them later than they come gets more tokens at a time. Closing the iterator or
        cancelling its task cancels the answers that have not ended. `params.stop` is not sought:
        the engine knows no text.

        priority  lower = sooner
        salt      prefixes are shared only with calls of the same salt
        Raises RequestError and QueueFullError before the first, EngineDownError at any time.
        """
        call = self._submit(prompt_ids, params, priority, salt)
        try:
            while not call.is_done:
                for tokens in await call.news():
                    yield tokens
        finally:
            numbers = self._calls.forget(call)
            if numbers and self._child is not None:
                self._child.send(Cancel(numbers))

    def cancel(self, number: int) -> None:
        """End one answer of an open call, whose others go on; its last news say so."""
        if self._calls.cancel(number) and self._child is not None:
            self._child.send(Cancel([number]))

    def stats(self) -> EngineStats:
        """What the engine last told, at most 0.1 s ago while it works."""
        return msgspec.structs.replace(self._stats, dead_because=self._down_because)

    async def probe(self, timeout_s: float) -> None:
        """Wait for a token that the engine decodes from now on, its own or another call's.

        Raises EngineDownError with the reason if none comes in time.
        """
        await probe(self.generate, self._has_token, timeout_s)

    def _submit(
        self, prompt_ids: Sequence[int], params: SamplingParams, priority: int, salt: str | None
    ) -> Call:
        if self._down_because is not None:
            raise EngineDownError(self._down_because, max(1, ceil(self.back_at - monotonic())))
        assert self._child is not None
        call = self._calls.open(params.n, params.logprobs is not None)
        try:
            prompt = array("i", prompt_ids).tobytes()
            self._child.send(Submit(call.number, prompt, params, priority, salt))
        except (TypeError, ValueError, OverflowError) as error:
            self._calls.forget(call)
            raise RequestError(f"the request holds a value that is not allowed: {error}") from None
        return call

    async def _read(
        self,
        child: Child,
        ready: "asyncio.Future[EngineInfo]",
        hear: Callable[[Found | Progress], None],
    ) -> None:
        while True:
            match await child.receive():
                case Stepped() as stepped:
                    self._stats = stepped.stats or self._stats
                    self._calls.take(stepped)
                    if stepped.numbers or any(news.token_ids for news in stepped.news):
                        self._has_token.set()
                case Refused() as refused:
                    self._calls.refuse(refused)
                case (Found() | Progress()) as message:
                    hear(message)
                case Ready(info):
                    ready.set_result(info)
                case Unloadable(message):
                    ready.set_exception(HaastError(message))
                case Dead(reason):
                    self._fall(reason)

    async def _watch_end(self, child: Child) -> None:
        self._fall(await child.wait_end())

    async def _watch_hang(self, child: Child, busy: Callable[[], str], hang_s: float) -> None:
        """busy: what it should be telling of; nothing = it may be silent"""
        await child.wait_hang(lambda: bool(busy()), hang_s)
        self._fall(
            f"the engine process (pid {child.pid}) hangs: {busy()}, but it told nothing for "
            f"{hang_s:g} s; it was killed"
        )
        child.kill()

    def _is_answering(self) -> str:
        return f"{len(self._calls)} answers are open" if len(self._calls) else ""

    def _fall(self, reason: str) -> None:
        """There is no engine from now on; the first reason is the one to tell."""
        if not self._is_down.is_set():
            self._down_because = reason
            self._is_down.set()
        self._calls.fail(str(self._down_because))

    def _on_task_end(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fall(f"the engine process cannot be heard: {error!r}")
