"""One level of load: so many requests at a time until all were sent, each timed."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time

from haast.bench.load.connection import Connection, ConnectionLostError
from haast.bench.load.prompts import Requests
from haast.bench.load.reading import Reading, Usage
from haast.bench.load.target import Target


@dataclass(frozen=True)
class Outcome:
    """One request, by the clock of `perf_counter`.

    arrivals  when the events came that bring text
    error     why it does not count; None = it does
    """

    started: float
    ended: float
    arrivals: Sequence[float] = ()
    usage: Usage = field(default_factory=Usage)
    error: str | None = None


@dataclass(frozen=True)
class Level:
    """What a level gave. busy_s: CPU time of this process, of wall_s."""

    concurrency: int
    outcomes: list[Outcome]
    wall_s: float
    busy_s: float


async def run_level(
    target: Target,
    requests: Requests,
    concurrency: int,
    bodies: Sequence[bytes],
    timeout_s: float,
    on_end: Callable[[], None] = lambda: None,
) -> Level:
    """Send a request for each body, `concurrency` at a time: the next when one has ended.

    on_end  called when a request has ended, however it did
    Connections are kept alive, and open before the clock starts. Nothing is raised for what a
    server does wrong: the outcomes tell. Raises OSError if it cannot be connected to at first.
    """
    slots = min(concurrency, len(bodies))
    opened = [await target.connect() for _ in range(slots)]
    waiting = iter([target.request("POST", requests.path, body) for body in bodies])
    outcomes: list[Outcome] = []

    async def work(connection: Connection, waiting: Iterator[bytes]) -> None:
        for request in waiting:
            started = perf_counter()
            try:
                if not connection.is_open:
                    connection = await target.connect()
                outcome = await _ask(connection, request, requests.output_len, timeout_s)
            except OSError as error:
                outcome = Outcome(started, perf_counter(), error=str(error))
            outcomes.append(outcome)
            on_end()
        connection.close()

    started, busy = perf_counter(), process_time()
    async with asyncio.TaskGroup() as group:
        for connection in opened:
            group.create_task(work(connection, waiting))
    return Level(concurrency, outcomes, perf_counter() - started, process_time() - busy)


async def _ask(
    connection: Connection, request: bytes, output_len: int, timeout_s: float
) -> Outcome:
    reading = Reading()
    error = None
    started = perf_counter()
    try:
        async with asyncio.timeout(timeout_s):
            await connection.send(request, reading)
    except TimeoutError:
        error = f"no whole answer in {timeout_s:g} s"
    except ConnectionLostError as lost:
        error = str(lost)
    ended = perf_counter()
    error = error or reading.error or _what_is_missing(reading, output_len)
    return Outcome(started, ended, reading.arrivals, reading.usage or Usage(), error)


def _what_is_missing(reading: Reading, output_len: int) -> str | None:
    """Why an answer that came without an error is none that counts."""
    if not reading.is_done:
        return "the stream ended without [DONE]"
    if reading.usage is None:
        return "the stream told no usage"
    if reading.usage.completion_tokens != output_len:
        return f"{reading.usage.completion_tokens} tokens came, {output_len} were asked for"
    if not reading.arrivals:
        return "no text came"
    return None
