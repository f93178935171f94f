"""Runs the prompts of a call and hands out what each answer gains, until all have ended."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from haast.engine.request import SamplingParams
from haast.serve.answer import Answer, Piece
from haast.serve.errors import MENDABLE, ApiError
from haast.serve.messages import Tokens
from haast.serve.metrics import Timer
from haast.serve.service import Service

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generation:
    """What the engine is asked: params.n answers to each prompt.

    answers  answer j to prompt i is number i * params.n + j
    """

    id: str
    prompts: Sequence[list[int]]
    params: SamplingParams
    answers: Sequence[Answer]
    priority: int = 0
    salt: str | None = None

    def usage(self) -> dict[str, Any]:
        """Tokens so far, with OpenAI's names."""
        prompt = sum(map(len, self.prompts))
        generated = sum(answer.num_tokens for answer in self.answers)
        cached = sum(answer.cached_tokens for answer in self.answers[:: self.params.n])
        thought = sum(answer.reasoning_tokens for answer in self.answers)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": thought},
        }


async def follow(
    service: Service, generation: Generation
) -> AsyncGenerator[tuple[int, list[Piece]], None]:
    """Yield (number of an answer, what it gains); nothing comes after all answers have ended.

    Closing it early cancels the call in the engine.
    Raises HaastError and EngineDownError as EngineClient does, and ApiError.
    """
    timers = [Timer(service.metrics, time.perf_counter) for _ in generation.answers]
    num_open, is_counted = len(generation.answers), False
    try:
        async with aclosing(_news(service, generation)) as news:
            async for prompt, tokens in news:
                number = prompt * generation.params.n + tokens.index
                answer = generation.answers[number]
                if not is_counted:
                    is_counted = True
                    _count(service, generation)
                if answer.finish_reason is not None:
                    continue  # a stop string ended it, and it was cancelled
                timers[number].tokens(len(tokens.token_ids))
                pieces = answer.take(tokens)
                if answer.finish_reason is not None:
                    num_open -= 1
                    _count_end(service, timers[number], answer)
                    if tokens.finish_reason is None and num_open:
                        service.client.cancel(tokens.number)  # its siblings go on
                yield number, pieces
                if not num_open:
                    return
    except (ApiError, *MENDABLE):
        for timer in timers:
            timer.end("error")
        raise
    finally:
        for timer in timers:
            timer.end("abort")
        _tell(generation)


def _count_end(service: Service, timer: Timer, answer: Answer) -> None:
    assert answer.finish_reason is not None
    # vLLM knows no tool calls here
    timer.end("stop" if answer.finish_reason == "tool_calls" else answer.finish_reason)
    service.metrics.anomalies.update(answer.anomalies)


def _tell(generation: Generation) -> None:
    if _log.isEnabledFor(logging.DEBUG):
        reasons = [answer.finish_reason or "abort" for answer in generation.answers]
        usage = generation.usage()
        counts = f"{usage['prompt_tokens']} + {usage['completion_tokens']} tokens"
        _log.debug("%s: %s, %s", generation.id, counts, ", ".join(reasons))


def _count(service: Service, generation: Generation) -> None:
    """Count a call that the engine has taken."""
    metrics, params = service.metrics, generation.params
    for prompt_ids in generation.prompts:
        metrics.prompt_tokens += len(prompt_ids)
        metrics.observe("request_prompt_tokens", len(prompt_ids))
        metrics.observe("request_params_n", params.n)
        if params.max_new_tokens is not None:
            metrics.observe("request_params_max_tokens", params.max_new_tokens)


def _news(service: Service, generation: Generation) -> AsyncGenerator[tuple[int, Tokens], None]:
    runs = [
        service.client.generate(
            ids, generation.params, priority=generation.priority, salt=generation.salt
        )
        for ids in generation.prompts
    ]
    return _merged(runs) if len(runs) > 1 else _numbered(runs[0])


async def _numbered(run: AsyncGenerator[Tokens, None]) -> AsyncGenerator[tuple[int, Tokens], None]:
    async with aclosing(run):
        async for tokens in run:
            yield 0, tokens


async def _merged(
    runs: Sequence[AsyncGenerator[Tokens, None]],
) -> AsyncGenerator[tuple[int, Tokens], None]:
    """News of several runs as they come; the first error ends all."""
    queue: asyncio.Queue[tuple[int, Tokens] | asyncio.Task[None]] = asyncio.Queue()

    async def pump(index: int) -> None:
        async for tokens in runs[index]:  # is where cancelling the task ends it
            queue.put_nowait((index, tokens))

    tasks = [asyncio.create_task(pump(index)) for index in range(len(runs))]
    for task in tasks:
        task.add_done_callback(queue.put_nowait)
    num_open = len(tasks)
    try:
        while num_open:
            item = await queue.get()
            if isinstance(item, asyncio.Task):
                num_open -= 1
                item.result()
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
