"""/v1/responses and what lies below it."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from haast.serve.errors import ApiError, invalid
from haast.serve.requests import read_body, service_of
from haast.serve.responses import document
from haast.serve.responses_api import run
from haast.serve.responses_api.background import encoded
from haast.serve.responses_api.body import ENCRYPTED, LOGPROBS, ResponseBody, check_body
from haast.serve.responses_api.constraint import constraint_of
from haast.serve.responses_api.items import Item
from haast.serve.responses_api.store import Stored
from haast.serve.sse import EventStream, unless_gone

_MAX_LISTED = 100
_YES = {"true": True, "false": False}


async def create(request: Request) -> Response:
    """Answer as a stream, in one piece or in the background."""
    job = await run.prepare(request, await read_body(request, ResponseBody))
    ping_s = job.service.settings.ping_s

    def failed(error: ApiError) -> bytes:
        return encoded(job.response.fail(error))

    if job.body.background:
        background = run.start(job)
        if job.body.stream:
            return EventStream(background.read(), ping_s, failed)
        return document(job.response.document())
    if job.body.stream:
        return EventStream(run.stream(job), ping_s, failed)
    return document(await unless_gone(request, run.whole(job)))


async def retrieve(request: Request) -> Response:
    """A stored response, or its events behind `starting_after` if it was streamed."""
    stored = _stored(request)
    query = request.query_params
    for what in (*query.getlist("include"), *query.getlist("include[]")):
        if what in (LOGPROBS, ENCRYPTED):
            raise invalid("include", f"{what!r} must be included when the response is created")
    if _flag(request, "include_obfuscation"):
        raise invalid("include_obfuscation", "include_obfuscation is not supported; allowed: false")
    if not _flag(request, "stream"):
        if "starting_after" in query:
            raise invalid("starting_after", "starting_after is only allowed when stream is true")
        return document(stored.shown())
    background = stored.background
    if background is None or not background.keeps_events:
        message = "only a response made with background=true and stream=true can be streamed again"
        raise invalid("stream", message)
    after = _number(request, "starting_after", -1, range(1 << 53))
    return EventStream(background.read(after), service_of(request).settings.ping_s)


async def delete(request: Request) -> Response:
    """Forget a stored response; one that still runs is cancelled."""
    stored = _stored(request)
    await _cancelled(stored)
    service_of(request).responses.delete(stored.id)
    return document({"id": stored.id, "object": "response", "deleted": True})


async def cancel(request: Request) -> Response:
    """End a response that runs in the background; one that has ended stays as it is."""
    stored = _stored(request)
    if not stored.shown()["background"]:
        raise ApiError(400, "Cannot cancel a synchronous response.")
    await _cancelled(stored)
    return document(_stored(request).shown())


async def input_items(request: Request) -> Response:
    """What a response was made from, the conversation before it included, newest first."""
    items = _stored(request).turn.context()
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid("order", f"order is {order!r}; allowed: asc, desc")
    return document(_page(request, items if order == "asc" else items[::-1]))


async def input_tokens(request: Request) -> Response:
    """How many tokens the prompt of a response would have; nothing is generated."""
    body = await read_body(request, ResponseBody)
    check_body(body)
    structure = await constraint_of(body)
    turn = run.turn_of(service_of(request), body)
    ids = await run.prompt_of(request, body, turn, structure)
    return document({"object": "response.input_tokens", "input_tokens": len(ids)})


def _stored(request: Request) -> Stored:
    name = request.path_params["response_id"]
    stored = service_of(request).responses.get(name)
    if stored is None:
        raise ApiError(404, f"Response with id {name!r} not found.", param="id")
    return stored


async def _cancelled(stored: Stored) -> None:
    if stored.background is not None:
        await stored.background.cancel()


def _page(request: Request, items: Sequence[Item]) -> dict[str, Any]:
    limit = _number(request, "limit", 20, range(1, _MAX_LISTED + 1))
    after = request.query_params.get("after")
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise invalid("after", f"after is {after!r}; no item has this id")
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > limit,
    }


def _flag(request: Request, name: str) -> bool:
    given = request.query_params.get(name, "false")
    if given not in _YES:
        raise invalid(name, f"{name} is {given!r}; allowed: true, false")
    return _YES[given]


def _number(request: Request, name: str, default: int, allowed: range) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    if not given.isdecimal() or len(given) > 16 or int(given) not in allowed:
        what = f"a whole number in [{allowed.start}, {allowed.stop - 1}]"
        raise invalid(name, f"{name} is {given!r}; allowed: {what}")
    return int(given)
