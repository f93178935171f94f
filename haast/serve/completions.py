"""POST /v1/completions: text or token ids go on as they are, without a chat around them."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from haast.harmony.grammar import text_grammar
from haast.serve.answer import Piece, TextAnswer
from haast.serve.errors import invalid
from haast.serve.fields import REFUSED_IN_COMPLETIONS, check_extra
from haast.serve.formats import asks_for_format, format_of
from haast.serve.generation import Generation, follow
from haast.serve.logprobs import Scored, completion_logprobs
from haast.serve.protocol import CompletionBody
from haast.serve.requests import is_large, new_id, read_body, service_of
from haast.serve.responses import document
from haast.serve.sampling import check_length, completion_params
from haast.serve.service import Service
from haast.serve.sse import DONE, EventStream, event, unless_gone

MAX_PROMPTS = 1024


@dataclass(frozen=True)
class Completion:
    """A completion request, checked, with its prompts as token ids.

    head    fields of the body and of every chunk
    echoes  what the answers to each prompt begin with
    """

    body: CompletionBody
    generation: Generation
    head: dict[str, Any]
    echoes: list[str]

    def echo(self, number: int) -> str:
        return self.echoes[number // self.generation.params.n]


async def completions(request: Request) -> Response:
    """Answer as a stream or in one piece."""
    service = service_of(request)
    completion = await _prepare(request)
    if completion.body.stream:
        return EventStream(_events(service, completion), service.settings.ping_s)
    return document(await unless_gone(request, _whole(service, completion)))


async def _prepare(request: Request) -> Completion:
    service = service_of(request)
    body = await read_body(request, CompletionBody)
    check_extra(body, REFUSED_IN_COMPLETIONS)
    if body.echo and body.logprobs is not None:
        raise invalid("echo", "echo with logprobs is not supported: prompts are not scored")
    params = completion_params(body)
    form = await asyncio.to_thread(format_of, body) if asks_for_format(body) else None
    if form is not None:
        params = replace(params, grammar=text_grammar(form.piece))
    prompts = await _prompt_ids(request, body)
    for prompt_ids in prompts:
        check_length(prompt_ids, params, service.max_length, "prompt")
    skips = body.skip_special_tokens is not False
    answers = [TextAnswer(service.tokenizer, params, skips) for _ in range(len(prompts) * params.n)]
    generation = Generation(
        new_id("cmpl"), prompts, params, answers, body.priority or 0, body.cache_salt
    )
    head = {"id": generation.id, "object": "text_completion", "created": int(time.time())}
    echoes = [service.tokenizer.decode(ids) if body.echo else "" for ids in prompts]
    return Completion(body, generation, head | {"model": service.model}, echoes)


async def _prompt_ids(request: Request, body: CompletionBody) -> list[list[int]]:
    encode = service_of(request).tokenizer.encode
    given = body.prompt
    prompts: list[Any]
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        prompts = [given]
    else:
        prompts = list(given)
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise invalid("prompt", f"prompt must have 1 to {MAX_PROMPTS} entries; got {len(prompts)}")

    def encoded() -> list[list[int]]:
        return [encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]

    ids = await asyncio.to_thread(encoded) if is_large(request) else encoded()
    if not all(ids):
        raise invalid("prompt", "prompt must have at least one token")
    return ids


async def _whole(service: Service, completion: Completion) -> dict[str, Any]:
    generation = completion.generation
    pieces: list[list[Piece]] = [[] for _ in generation.answers]
    async for number, gained in follow(service, generation):
        pieces[number] += gained
    choices = []
    for number, answer in enumerate(generation.answers):
        tokens = tuple(token for piece in pieces[number] for token in piece.tokens)
        text = completion.echo(number) + "".join(piece.text for piece in pieces[number])
        choices.append(_choice(service, completion, number, text, tokens, answer.finish_reason))
    return completion.head | {"choices": choices, "usage": generation.usage()}


def _choice(
    service: Service,
    completion: Completion,
    number: int,
    text: str,
    tokens: tuple[Scored, ...] = (),
    reason: str | None = None,
) -> dict[str, Any]:
    logprobs = None
    if completion.body.logprobs is not None:
        logprobs = completion_logprobs(tokens, service.tokenizer)
    return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}


async def _events(service: Service, completion: Completion) -> AsyncGenerator[bytes, None]:
    generation, options = completion.generation, completion.body.stream_options
    has_usage = bool(options and options.include_usage)
    is_continuous = has_usage and bool(options and options.continuous_usage_stats)

    def chunk(choice: dict[str, Any]) -> bytes:
        usage = {"usage": generation.usage() if is_continuous else None} if has_usage else {}
        return event(completion.head | {"choices": [choice]} | usage)

    begun = set()
    async with aclosing(follow(service, generation)) as news:
        async for number, pieces in news:
            events = []
            if completion.body.echo and number not in begun:
                begun.add(number)
                events.append(chunk(_choice(service, completion, number, completion.echo(number))))
            for piece in pieces:
                choice = _choice(service, completion, number, piece.text, piece.tokens)
                events.append(chunk(choice))
            reason = generation.answers[number].finish_reason
            if reason is not None:
                choice = _choice(service, completion, number, "", reason=reason)
                events.append(chunk(choice | {"logprobs": None}))
            if events:
                yield b"".join(events)
    usage = event(completion.head | {"choices": [], "usage": generation.usage()})
    yield (usage if has_usage else b"") + DONE
