"""Keeps an engine running: starts it again whenever it has fallen."""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

import zmq

from haast.errors import HaastError
from haast.serve.client import EngineClient, EngineDownError

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
"""Delays double in between"""
STEADY_S = 60.0
"""The next fall of an engine that was up for so long has the first delay again"""
_log = logging.getLogger(__name__)


async def keep(client: EngineClient, on_restart: Callable[[], None]) -> None:
    """For ever; logs a line when the engine falls and one when it is back.

    client      has started
    on_restart  called when it is back
    """
    delay_s = FIRST_DELAY_S
    while True:
        up_at = monotonic()
        reason = await client.wait_down()
        fell_at = monotonic()
        if fell_at - up_at >= STEADY_S:
            delay_s = FIRST_DELAY_S
        _log.error("the engine is down: %s; requests are answered with 503", reason)
        delay_s = await _revive(client, delay_s)
        on_restart()
        _log.warning("the engine is back after %.1f s", monotonic() - fell_at)


async def _revive(client: EngineClient, delay_s: float) -> float:
    """Until it is up; the delay before the next attempt, should it fall soon."""
    told = ""
    while True:
        client.back_at = monotonic() + delay_s + client.info.load_s
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        try:
            await client.start()
            return delay_s
        except (HaastError, EngineDownError, OSError, zmq.ZMQError) as error:
            if str(error) != told:
                told = str(error)
                _log.error("the engine cannot be started, which is tried again: %s", told)
