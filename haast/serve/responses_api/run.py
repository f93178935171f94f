"""From the body of a request to a response: the prompt, the generation, what is kept of it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from haast.harmony import ConversationError, TemplateError
from haast.prompt import ChatOptions, opened_message
from haast.serve.errors import MENDABLE, ApiError, api_error, invalid
from haast.serve.generation import Generation, follow
from haast.serve.requests import IN_A_THREAD, service_of
from haast.serve.responses_api.answer import ResponseAnswer
from haast.serve.responses_api.background import Background, encoded
from haast.serve.responses_api.body import ENCRYPTED, LOGPROBS, ResponseBody, check_body
from haast.serve.responses_api.constraint import constraint_of
from haast.serve.responses_api.conversation import fitted, renamed, to_chat
from haast.serve.responses_api.items import item_id, read_items
from haast.serve.responses_api.output import Event, Output
from haast.serve.responses_api.response import Response, head_of
from haast.serve.responses_api.store import Stored, Turn, encode, new_turn
from haast.serve.sampling import check_length
from haast.serve.service import Service
from haast.serve.structure import Structure, held

SESSION = "haast.session"
"""In the scope of a request: what its response's id ends with, so that whoever stands in front of
several servers knows which of them has it"""
_UNFINISHED = ("queued", "in_progress", "failed")


@dataclass(frozen=True)
class Job:
    """A request that was checked and rendered.

    answer     the only one of its generation
    turn       input of the response, and the conversation that it goes on with
    is_stored  whether clients may come back to it
    """

    service: Service
    body: ResponseBody
    generation: Generation
    answer: ResponseAnswer
    response: Response
    turn: Turn
    is_stored: bool

    def keep(self, background: Background | None = None) -> None:
        """Store the response as it is now, if its client wishes."""
        if not self.is_stored:
            return
        response, turn = self.response, self.turn
        if not response.has_ended:
            self.service.responses.put(Stored(response.id, turn, background=background))
            return
        answered = turn.with_output(response.items)
        document = encode(response.document())
        self.service.responses.put(Stored(response.id, answered, document, background))


async def prepare(request: Request, body: ResponseBody) -> Job:
    """Raises ApiError."""
    service = service_of(request)
    check_body(body)
    structure = await constraint_of(body)
    is_stored = body.store is not False and service.responses.is_on
    if body.background and not is_stored:
        raise invalid("background", "background is only allowed when the response is stored")
    params = body.params()
    turn = turn_of(service, body)
    prompt_ids = await prompt_of(request, body, turn, structure)
    check_length(prompt_ids, params, service.max_length, "input")
    opened = opened_message(prompt_ids, service.tokenizer)
    params = await held(params, structure, opened, service.tokenizer)
    may_call = structure.choice.mode != "none"
    answer = ResponseAnswer(service.tokenizer, params, opened, may_call)
    name = item_id("resp") + request.scope.get(SESSION, "")
    output = Output(service.tokenizer, body.includes(LOGPROBS), body.includes(ENCRYPTED))
    head = head_of(body, params, name, service.model, is_stored)
    generation = Generation(
        name, [prompt_ids], params, [answer], body.priority or 0, body.cache_salt
    )
    return Job(service, body, generation, answer, Response(head, output), turn, is_stored)


def turn_of(service: Service, body: ResponseBody) -> Turn:
    """The input of a request, and the conversation that it goes on with. Raises ApiError."""
    items = read_items(body.input or [], service.responses.find_item)
    name = body.previous_response_id
    if name is None:
        return new_turn(items, None)
    stored = service.responses.get(name)
    if stored is None:
        message = f"Previous response with id {name!r} not found."
        raise invalid("previous_response_id", message, "previous_response_not_found")
    status = stored.shown()["status"]
    if status in _UNFINISHED:
        message = f"Previous response with id {name!r} is {status}; it cannot be gone on with."
        raise invalid("previous_response_id", message)
    return new_turn(items, stored.turn)


async def prompt_of(
    request: Request, body: ResponseBody, turn: Turn, structure: Structure
) -> list[int]:
    """Token ids of the prompt. Raises ApiError."""
    service = service_of(request)
    args = (service, body, turn, structure)
    size = request.state.body_bytes + turn.total_bytes
    return await asyncio.to_thread(_render, *args) if size >= IN_A_THREAD else _render(*args)


def _render(service: Service, body: ResponseBody, turn: Turn, structure: Structure) -> list[int]:
    items = turn.context()
    chat, origins = to_chat(items, body.instructions)
    offered = None if structure.choice.mode == "none" else structure.tools
    told = None if structure.form is None else structure.form.told
    date = service.settings.conversation_date
    options = ChatOptions(body.effort, date, offered, told)

    def render(messages: list[dict[str, Any]]) -> list[int]:
        return service.prompts.ids(messages, options)

    try:
        if body.truncation != "auto":
            return render(chat)
        room = body.max_output_tokens or service.max_length // 8
        return fitted(render, chat, service.max_length - room)
    except (ConversationError, TemplateError) as error:
        num_before = len(items) - len(turn.ids)
        raise renamed(error, origins, num_before) from None


async def told(job: Job) -> AsyncGenerator[list[Event], None]:
    """Events of a response from its beginning in the engine to its end.

    One that does not run in the background is kept before its last events are told.
    """
    response, answer = job.response, job.answer
    async with aclosing(follow(job.service, job.generation)) as news:
        events: list[Event] | None = None
        async for _, pieces in news:
            events = (response.begun() if events is None else []) + response.take(pieces)
            if answer.finish_reason is not None:
                is_too_long = answer.finish_reason == "length"
                events += response.end(answer.is_cut, is_too_long, job.generation.usage())
                if not job.body.background:
                    job.keep()
            if events:
                yield events


async def whole(job: Job) -> dict[str, Any]:
    """The response in one piece: what a stream would have told, put together."""
    async with aclosing(told(job)) as events:
        async for _ in events:
            pass
    return job.response.document()


async def stream(job: Job) -> AsyncGenerator[bytes, None]:
    """Server-sent events of a response. An error after the first one is an event, too."""
    has_begun = False
    try:
        async with aclosing(told(job)) as told_so_far:
            async for events in told_so_far:
                has_begun = True
                yield encoded(events)
    except (*MENDABLE, ApiError) as error:
        if not has_begun:
            raise
        events = job.response.fail(api_error(error))
        job.keep()
        yield encoded(events)


def start(job: Job) -> Background:
    """Generate a response in the background; it can be found from now on."""

    def on_end() -> None:
        job.keep(background if job.body.stream else None)

    background = Background(job.response, told(job), bool(job.body.stream), on_end)
    job.keep(background)
    return background
