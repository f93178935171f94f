"""Whether an engine still decodes, asked by having it do so."""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncGenerator, Callable

from haast.engine.request import QueueFullError, SamplingParams
from haast.serve.messages import EngineDownError, Tokens

PRIORITY = -(1 << 31)
Generate = Callable[..., AsyncGenerator[Tokens, None]]


async def probe(generate: Generate, has_token: asyncio.Event, timeout_s: float) -> None:
    """Wait for a token that the engine decodes from now on: for a prompt of one token, ahead of
    all calls, or for a call if that comes first.

    generate   of the EngineClient
    has_token  is set at every token that comes, of any call
    Raises EngineDownError with the reason if none comes in time.
    """
    has_token.clear()
    tasks = [asyncio.create_task(c) for c in (_decode_one(generate, has_token), has_token.wait())]
    try:
        done, _ = await asyncio.wait(tasks, timeout=timeout_s, return_when=FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not done:
        raise EngineDownError(f"the engine decoded no token within {timeout_s:g} s")


async def _decode_one(generate: Generate, has_token: asyncio.Event) -> None:
    params = SamplingParams(temperature=0, max_new_tokens=1)
    try:
        async for tokens in generate([0], params, priority=PRIORITY):
            if tokens.error is not None:
                raise EngineDownError(f"the engine decoded no token: {tokens.error}")
    except QueueFullError:
        await has_token.wait()  # of those who wait in it
