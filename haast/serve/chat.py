"""POST /v1/chat/completions and its render: requests to generations, answers to bodies."""

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from haast.harmony.messages import Effort, ResponseFormat
from haast.prompt import ChatOptions, opened_message
from haast.serve.answer import Piece
from haast.serve.chat_answer import ChatAnswer
from haast.serve.chat_stream import ChatWriter, chat_events
from haast.serve.errors import invalid
from haast.serve.fields import REFUSED_IN_CHAT, check_extra
from haast.serve.formats import asks_for_format, format_of
from haast.serve.generation import Generation, follow
from haast.serve.logprobs import chat_logprobs
from haast.serve.protocol import ChatBody, TokenizeBody
from haast.serve.requests import is_large, new_id, read_body, service_of
from haast.serve.responses import document
from haast.serve.sampling import chat_params, check_length
from haast.serve.service import Service
from haast.serve.sse import EventStream, unless_gone
from haast.serve.structure import Structure, held
from haast.serve.tool_choice import tool_choice_of

_EFFORTS = {"minimal": "low", "xhigh": "high", "max": "high"}
"""Efforts of other models -> the nearest that gpt-oss has"""


def nearest_effort(given: str | None) -> str:
    """The effort to tell gpt-oss; medium if none is given."""
    return _EFFORTS.get(given or "", given or "medium")


@dataclass(frozen=True)
class Chat:
    """A chat request, checked and rendered."""

    body: ChatBody
    generation: Generation
    writer: ChatWriter


async def completions(request: Request) -> Response:
    """Answer a chat, as a stream or in one piece."""
    service = service_of(request)
    chat = await _prepare(request)
    options = chat.body.stream_options
    if chat.body.stream:
        events = chat_events(service, chat.generation, chat.writer, options)
        return EventStream(events, service.settings.ping_s)
    return document(await unless_gone(request, _whole(service, chat)))


async def render(request: Request) -> Response:
    """The prompt that a chat request makes, as token ids and as text; nothing is generated."""
    service = service_of(request)
    prompt_ids = (await _prepare(request)).generation.prompts[0]
    return document(
        {
            "model": service.model,
            "prompt_token_ids": prompt_ids,
            "prompt": service.tokenizer.decode(prompt_ids),
            "count": len(prompt_ids),
            "max_model_len": service.max_length,
        }
    )


async def chat_ids(
    request: Request, body: ChatBody | TokenizeBody, told: ResponseFormat | None = None
) -> list[int]:
    """Token ids of the prompt that a chat makes. Raises ConversationError, ApiError.

    told  what the model is told of the format of its answer
    """
    service = service_of(request)
    effort = body.reasoning_effort
    tools = body.tools
    if isinstance(body, ChatBody):
        effort = _effort(body)
        tools = tools if body.tool_choice != "none" else None
    date = service.settings.conversation_date
    options = ChatOptions(cast(Effort, nearest_effort(effort)), date, tools, told)
    if is_large(request):
        return await asyncio.to_thread(service.prompts.ids, body.messages or [], options)
    return service.prompts.ids(body.messages or [], options)


async def _prepare(request: Request) -> Chat:
    service = service_of(request)
    body = await read_body(request, ChatBody)
    check_extra(body, REFUSED_IN_CHAT)
    choice = tool_choice_of(body.tool_choice, body.tools or ())
    params = chat_params(body)
    form = await asyncio.to_thread(format_of, body) if asks_for_format(body) else None
    prompt_ids = await chat_ids(request, body, None if form is None else form.told)
    check_length(prompt_ids, params, service.max_length, "messages")
    opened = opened_message(prompt_ids, service.tokenizer)
    structure = Structure(choice, body.tools or (), form, body.thinking_token_budget)
    params = await held(params, structure, opened, service.tokenizer)
    may_call = choice.mode != "none"
    answers = [ChatAnswer(service.tokenizer, params, opened, may_call) for _ in range(params.n)]
    generation = Generation(
        new_id("chatcmpl"), [prompt_ids], params, answers, body.priority or 0, body.cache_salt
    )
    shows = body.include_reasoning is not False and not (body.reasoning and body.reasoning.exclude)
    return Chat(body, generation, ChatWriter(service, generation.id, shows, bool(body.logprobs)))


def _effort(body: ChatBody) -> str | None:
    nested = body.reasoning.effort if body.reasoning else None
    if nested and body.reasoning_effort and nested != body.reasoning_effort:
        raise invalid("reasoning_effort", "reasoning_effort and reasoning.effort differ")
    return nested or body.reasoning_effort


async def _whole(service: Service, chat: Chat) -> dict[str, Any]:
    """The answers in one piece: what a stream would have told, put together."""
    generation, writer = chat.generation, chat.writer
    pieces: list[list[Piece]] = [[] for _ in generation.answers]
    async for number, gained in follow(service, generation):
        pieces[number] += gained
    choices = [
        {
            "index": number,
            "message": _message(writer, pieces[number]),
            "logprobs": _logprobs(writer, service, pieces[number]),
            "finish_reason": answer.finish_reason,
        }
        for number, answer in enumerate(generation.answers)
    ]
    head = writer.head | {"object": "chat.completion"}
    return head | {"choices": choices, "usage": generation.usage()}


def _message(writer: ChatWriter, pieces: list[Piece]) -> dict[str, Any]:
    content = _text(pieces, "content")
    calls = _calls(writer, pieces)
    message: dict[str, Any] = {"role": "assistant", "refusal": None}
    message["content"] = None if calls and not content else content
    message |= writer.reasoning(_text(pieces, "reasoning"))
    return message | ({"tool_calls": calls} if calls else {})


def _text(pieces: list[Piece], kind: str) -> str:
    return "".join(piece.text for piece in pieces if piece.kind == kind)


def _calls(writer: ChatWriter, pieces: list[Piece]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    for piece in pieces:
        if piece.kind == "tool_call" and piece.name is not None:
            calls.append(writer.new_call(piece))
        elif piece.kind == "tool_call":
            calls[piece.call]["function"]["arguments"] += piece.text
    return calls


def _logprobs(writer: ChatWriter, service: Service, pieces: list[Piece]) -> dict[str, Any] | None:
    if not writer.has_logprobs:
        return None
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    return chat_logprobs(tokens, service.tokenizer)
