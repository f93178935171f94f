"""The pages for people: each is one file, style and script inside, so that it needs no network."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.S)


async def chat(_request: Request) -> Response:
    """A page to chat with the model."""
    return _page("chat.html")


async def docs(_request: Request) -> Response:
    """A page that shows /openapi.json."""
    return _page("docs.html")


def _page(name: str) -> Response:
    text, policy = load(name)
    headers = {
        "content-security-policy": policy,
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    return HTMLResponse(text, headers=headers)


@cache
def load(name: str) -> tuple[str, str]:
    """A page and its content security policy: nothing runs but what is in the file, and it may
    only ask this server."""
    text = files("haast.serve").joinpath("web", name).read_text(encoding="utf-8")
    hashes = {kind: _hash(inside) for kind, inside in _INLINE.findall(text)}
    policy = (
        f"default-src 'none'; script-src '{hashes['script']}'; style-src '{hashes['style']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return text, policy


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
