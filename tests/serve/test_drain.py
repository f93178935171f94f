"""What SIGTERM and SIGINT lead to: how long open requests may go on, and the exit status."""

import asyncio
import signal

import pytest

from haast.serve.gate import Gate
from haast.serve.server import _drain

from .conftest import run

TERM, INT = signal.SIGTERM, signal.SIGINT


def drained(events, shutdown_s=10, num_open=2):
    """(exit status, whether the gate was closed all the time); events: signals, or a request ends
    where an event is None.
    """

    async def work():
        signals, gate = asyncio.Queue(), Gate()
        for _ in range(num_open):
            gate.enter()
        draining = asyncio.create_task(_drain(signals, gate, shutdown_s, gate.wait_empty))
        await asyncio.sleep(0.01)
        assert not draining.done() and not gate.is_closed
        for event in events:
            if event is None:
                gate.leave()
            else:
                signals.put_nowait(event)
            await asyncio.sleep(0.01)
            assert gate.is_closed
        return await draining

    return run(work())


@pytest.mark.parametrize(
    "events, status, lines",
    [
        ([TERM, None, None], 0, 1),
        ([INT, None, None], 0, 1),
        ([TERM, None, TERM], 143, 2),
        ([TERM, INT], 130, 2),
    ],
)
def test_the_end_of_requests_or_another_signal(caplog, events, status, lines):
    with caplog.at_level("INFO", "haast.serve.server"):
        assert drained(events) == status
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "shutting down: 2 requests have 10 s to end" and len(told) == lines
    left = events.count(None)
    assert told[1:] == [f"{2 - left} requests had not ended and were cut off"][: lines - 1]


def test_time_is_up(caplog):
    assert drained([TERM], shutdown_s=0) == 0
    assert [r.getMessage() for r in caplog.records] == ["2 requests had not ended and were cut off"]


@pytest.mark.parametrize("shutdown_s", [0, 10])
def test_nobody_is_there(caplog, shutdown_s):
    assert drained([TERM], shutdown_s, num_open=0) == 0
    assert caplog.records == []


def test_a_body_whose_time_is_up_already():
    async def work():
        gate = Gate()
        async with asyncio.timeout(0.01) as limit:
            gate.bodies.add(limit)
            try:
                await asyncio.sleep(5)
            finally:
                gate.close()

    with pytest.raises(TimeoutError):
        run(work())
