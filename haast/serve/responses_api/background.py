"""A response that is generated whether or not anybody waits for it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from haast.serve.errors import MENDABLE, ApiError, api_error
from haast.serve.responses_api.output import Event
from haast.serve.responses_api.response import Response
from haast.serve.sse import event

_log = logging.getLogger(__name__)


def encoded(events: list[Event]) -> bytes:
    """Events as a stream sends them, each with its name."""
    return b"".join(b"event: %b\n%b" % (e["type"].encode(), event(e)) for e in events)


class Background:
    """Generates a response in a task of its own.

    keeps_events  whether they may be read, from any on
    on_end        called once it has ended, however it did
    """

    def __init__(
        self,
        response: Response,
        told: AsyncGenerator[list[Event], None],
        keeps_events: bool,
        on_end: Callable[[], None],
    ) -> None:
        self.response = response
        self.keeps_events = keeps_events
        self.num_bytes = 0
        self._events: list[bytes] = []
        self._more = asyncio.Event()
        self._on_end = on_end
        self._tell(response.created())
        self._task = asyncio.create_task(self._run(told))
        self._task.add_done_callback(self._ended)

    @property
    def has_ended(self) -> bool:
        return self.response.has_ended

    async def cancel(self) -> None:
        """Have the engine drop it; nothing if it has ended."""
        if not self.has_ended:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def read(self, after: int = -1) -> AsyncGenerator[bytes, None]:
        """Events behind the one with a number, those to come included."""
        at = after + 1
        while True:
            more, new = self._more, self._events[at:]
            if new:
                at += len(new)
                yield b"".join(new)
            elif self.has_ended:
                return
            else:
                await more.wait()

    async def _run(self, told: AsyncGenerator[list[Event], None]) -> None:
        try:
            async with aclosing(told):
                async for events in told:
                    self._tell(events)
        except (*MENDABLE, ApiError) as error:
            self._tell(self.response.fail(api_error(error)))
        except Exception:  # nobody awaits the task, and who polls must not do so for ever
            _log.exception("response %s failed", self.response.id)
            bug = ApiError(500, "internal server error", kind="server_error")
            self._tell(self.response.fail(bug))

    def _ended(self, _task: "asyncio.Task[None]") -> None:
        if not self.has_ended:
            self.response.cancel()
        self._on_end()
        self._wake()

    def _tell(self, events: list[Event]) -> None:
        if self.keeps_events:
            new = [encoded([e]) for e in events]
            self._events += new
            self.num_bytes += sum(map(len, new))
            self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()
