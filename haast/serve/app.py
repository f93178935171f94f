"""The application: routes, and what stands around them."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from haast.serve import chat, completions, endpoints, pages
from haast.serve.errors import MENDABLE, ApiError, api_error
from haast.serve.gate import Gated
from haast.serve.middleware import ApiKeys, RequestIds, TrailingSlashes
from haast.serve.openapi import Facts, describe
from haast.serve.requests import service_of
from haast.serve.responses import document
from haast.serve.responses_api import routes as responses_api
from haast.serve.service import Service
from haast.serve.sse import error_response

Endpoint = Callable[[Request], Awaitable[Response]]
ENDPOINTS: dict[str, tuple[str, Endpoint]] = {
    "/v1/chat/completions": ("POST", chat.completions),
    "/v1/chat/completions/render": ("POST", chat.render),
    "/v1/completions": ("POST", completions.completions),
    "/v1/responses": ("POST", responses_api.create),
    "/v1/responses/input_tokens": ("POST", responses_api.input_tokens),
    "/v1/responses/{response_id}": ("GET", responses_api.retrieve),
    "/v1/responses/{response_id}/cancel": ("POST", responses_api.cancel),
    "/v1/responses/{response_id}/input_items": ("GET", responses_api.input_items),
    "/v1/models": ("GET", endpoints.models),
    "/v1/models/{name:path}": ("GET", endpoints.model),
    "/tokenize": ("POST", endpoints.tokenize),
    "/detokenize": ("POST", endpoints.detokenize),
    "/health": ("GET", endpoints.health),
    "/ping": ("GET", endpoints.ping),
    "/version": ("GET", endpoints.version),
    "/metrics": ("GET", endpoints.metrics),
}
DELETIONS: dict[str, Endpoint] = {"/v1/responses/{response_id}": responses_api.delete}
"""Paths that can also be deleted"""


def make_app(service: Service) -> Starlette:
    """The ASGI application over a service."""
    settings = service.settings
    routes = [Route(path, e, methods=[method]) for path, (method, e) in ENDPOINTS.items()]
    routes += [Route(path, e, methods=["DELETE"]) for path, e in DELETIONS.items()]
    middleware = [
        Middleware(RequestIds),
        Middleware(TrailingSlashes),
        Middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id"],
        ),
    ]
    middleware.append(Middleware(Gated, gate=service.gate))
    if settings.api_keys:
        middleware.append(Middleware(ApiKeys, keys=settings.api_keys))
    app = Starlette(
        routes=[
            *routes,
            Route("/openapi.json", _openapi),
            Route("/", pages.chat),
            Route("/docs", pages.docs),
        ],
        middleware=middleware,
        exception_handlers={
            **dict.fromkeys((ApiError, *MENDABLE), _on_error),
            HTTPException: _on_http_error,
            ClientDisconnect: _on_gone,
            Exception: _on_bug,
        },
    )
    app.router.redirect_slashes = False  # TrailingSlashes has taken them away
    app.state.service = service
    return app


async def _openapi(request: Request) -> Response:
    service = service_of(request)
    facts = Facts(
        models=service.settings.models,
        vocab_size=service.client.info.vocab_size,
        max_length=service.max_length,
        has_keys=bool(service.settings.api_keys),
    )
    every = [(path, method, endpoint) for path, (method, endpoint) in ENDPOINTS.items()]
    every += [(path, "DELETE", endpoint) for path, endpoint in DELETIONS.items()]
    return document(
        describe(
            ((path.replace(":path", ""), method, e.__doc__ or "") for path, method, e in every),
            facts,
        )
    )


async def _on_error(_request: Request, error: Exception) -> Response:
    return error_response(api_error(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), error
    message = f"{error.detail}: {request.method} {request.url.path}"
    return error_response(ApiError(error.status_code, message, headers=error.headers))


async def _on_gone(_request: Request, _error: Exception) -> Response:
    """The client left while it was sending; nobody reads this."""
    return document(None)


async def _on_bug(_request: Request, _error: Exception) -> Response:
    """Starlette raises it again, so that its traceback is logged."""
    return error_response(ApiError(500, "internal server error", kind="server_error"))
