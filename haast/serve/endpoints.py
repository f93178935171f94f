"""The small endpoints: models, tokens, health, metrics."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from haast import __version__
from haast.serve.chat import chat_ids
from haast.serve.errors import invalid
from haast.serve.fields import check_extra
from haast.serve.protocol import DetokenizeBody, TokenizeBody
from haast.serve.requests import is_large, read_body, service_of
from haast.serve.responses import document
from haast.serve.service import Service

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def models(request: Request) -> Response:
    """The model, under each of its names."""
    service = service_of(request)
    names = service.settings.models
    return document({"object": "list", "data": [_model(service, name) for name in names]})


async def model(request: Request) -> Response:
    """The model under one name."""
    service = service_of(request)
    name = request.path_params["name"]
    service.check_model(name)
    return document(_model(service, name))


def _model(service: Service, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "haast",
        "root": service.client.info.model_path,
        "max_model_len": service.max_length,
    }


async def tokenize(request: Request) -> Response:
    """Token ids of a text, in which nothing becomes a special token, or of a chat's prompt."""
    service = service_of(request)
    body = await read_body(request, TokenizeBody)
    check_extra(body, {"add_generation_prompt": (True,), "continue_final_message": (False,)})
    if (body.prompt is None) == (body.messages is None):
        raise invalid("prompt", "give either prompt or messages")
    if body.prompt is None:
        ids = await chat_ids(request, body)
    elif is_large(request):
        ids = await asyncio.to_thread(service.tokenizer.encode, body.prompt)
    else:
        ids = service.tokenizer.encode(body.prompt)
    told = {"count": len(ids), "max_model_len": service.max_length, "tokens": ids}
    if body.return_token_strs:
        told["token_strs"] = [service.tokenizer.decode([token_id]) for token_id in ids]
    return document(told)


async def detokenize(request: Request) -> Response:
    """Text of token ids, special ones spelled out."""
    service = service_of(request)
    body = await read_body(request, DetokenizeBody)
    check_extra(body, {})
    size = service.client.info.vocab_size
    for token_id in body.tokens:
        if not 0 <= token_id < size:
            raise invalid("tokens", f"token id {token_id} is not in the vocabulary of {size}")
    return document({"prompt": service.tokenizer.decode(body.tokens)})


async def health(request: Request) -> Response:
    """200 once the engine has really decoded a token, 503 with the reason if it cannot."""
    service = service_of(request)
    await service.probe()
    return document({"status": "ok"})


async def ping(_request: Request) -> Response:
    """This process answers; nothing is said of the engine."""
    return document({"status": "ok"})


async def version(_request: Request) -> Response:
    """Which haast this is."""
    return document({"version": __version__})


async def metrics(request: Request) -> Response:
    """What is counted and timed, for Prometheus, under vLLM's names."""
    return PlainTextResponse(service_of(request).exposition.text(), media_type=METRICS_TYPE)
