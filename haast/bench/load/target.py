"""The server under load: where it is, and what it says about itself."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from haast.bench.load.connection import Connection, ConnectionLostError
from haast.bench.load.reading import OK, Whole, message
from haast.errors import HaastError

ASK_S = 30.0
"""How long the server may take to say what it is"""


class LoadError(HaastError):
    """Nothing can be measured."""


@dataclass(frozen=True)
class Target:
    """A server.

    prefix   what stands before the paths of the API
    headers  lines of every request
    """

    host: str
    port: int
    is_tls: bool
    prefix: str
    headers: str

    async def connect(self) -> Connection:
        """A new connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        context = ssl.create_default_context() if self.is_tls else None
        _, connection = await loop.create_connection(Connection, self.host, self.port, ssl=context)
        return connection

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The bytes of a request for a path such as /v1/models."""
        head = f"{method} {self.prefix}{path} HTTP/1.1\r\n{self.headers}"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def ask(self, path: str) -> dict[str, Any]:
        """A JSON document. Raises LoadError in one line if it is not to be had."""
        answer = Whole()
        try:
            async with asyncio.timeout(ASK_S):
                connection = await self.connect()
                await connection.send(self.request("GET", path), answer)
                connection.close()
        except TimeoutError:
            raise LoadError(f"{self}{path}: no answer in {ASK_S:.0f} s") from None
        except (OSError, ConnectionLostError) as error:
            raise unreachable(self, error) from None
        if answer.status != OK:
            raise LoadError(f"{self}{path}: {answer.status}: {message(answer.body)}")
        try:
            return msgspec.json.decode(answer.body, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise LoadError(f"{self}{path}: not what a model server says: {error}") from None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}{self.prefix}"


def unreachable(target: Target, error: Exception) -> LoadError:
    """The error of a server that cannot be connected to."""
    return LoadError(f"cannot reach {target}: {getattr(error, 'strerror', None) or error}")


def parse_url(url: str, api_key: str | None) -> Target:
    """`http://host:port`, with or without `/v1`. Raises LoadError for what is no such URL."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise LoadError(f"{url}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise LoadError(f"{url} is no URL of a server; try http://localhost:8000")
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise LoadError("--api-key must be printable ASCII")
    headers = f"Host: {parts.netloc.rpartition('@')[2]}\r\nContent-Type: application/json\r\n"
    if api_key:
        headers += f"Authorization: Bearer {api_key}\r\n"
    prefix = parts.path.rstrip("/").removesuffix("/v1")
    return Target(parts.hostname, port, parts.scheme == "https", prefix, headers)


async def model_name(target: Target) -> str:
    """The first model of the server's list. Raises LoadError."""
    data = (await target.ask("/v1/models")).get("data")
    if not (isinstance(data, list) and data and isinstance(data[0], dict) and "id" in data[0]):
        raise LoadError(f"{target}/v1/models names no model; give --model")
    return str(data[0]["id"])


async def server_version(target: Target) -> str | None:
    """What /version says, which haast and vLLM have; None elsewhere."""
    try:
        return str((await target.ask("/version")).get("version"))
    except LoadError:
        return None
