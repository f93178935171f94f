"""What the endpoints share: the engine, the words and the names."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from haast.harmony import ChatTemplate, Tokenizer
from haast.prompt import PromptBuilder
from haast.serve.client import EngineClient
from haast.serve.errors import ApiError
from haast.serve.gate import Gate
from haast.serve.metrics import Exposition, Metrics
from haast.serve.responses_api.store import ResponseStore
from haast.serve.vocabulary import tokenizer_of


@dataclass(frozen=True)
class Settings:
    """How the server answers.

    models              names of the model; answers carry the first
    api_keys            one of them is asked for; none = everyone may ask
    allowed_origins     web pages that may ask; * = all
    conversation_date   what the model is told of the day; None = nothing
    mirrors_reasoning   whether reasoning is also sent as `reasoning_content`
    health_s            how long the engine may take to decode a token
    ping_s              how long a stream may be silent
    response_store_mib  memory for responses that clients may come back to; 0 = none
    """

    models: tuple[str, ...]
    api_keys: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ("*",)
    conversation_date: str | None = None
    mirrors_reasoning: bool = False
    health_s: float = 30.0
    ping_s: float = 10.0
    response_store_mib: int = 256


@dataclass(frozen=True)
class Service:
    """A running engine and all that is needed to answer for it."""

    client: EngineClient
    settings: Settings
    tokenizer: Tokenizer
    prompts: PromptBuilder
    metrics: Metrics
    exposition: Exposition
    responses: ResponseStore
    gate: Gate = field(default_factory=Gate)
    created: int = field(default_factory=lambda: int(time.time()))
    _probes: "list[asyncio.Future[None]]" = field(default_factory=list)

    @property
    def model(self) -> str:
        return self.settings.models[0]

    @property
    def max_length(self) -> int:
        return self.client.info.max_length

    def check_model(self, name: str | None) -> None:
        """Raise ApiError 404 for a model that is not served; no name means ours."""
        if name and name not in self.settings.models:
            known = ", ".join(map(repr, self.settings.models))
            message = f"The model {name!r} does not exist; served here: {known}"
            raise ApiError(404, message, param="model", code="model_not_found")

    async def probe(self) -> None:
        """Have the engine decode a token; who asks meanwhile waits for the same one.

        Raises EngineDownError with the reason.
        """
        if not self._probes:
            probe = asyncio.ensure_future(self.client.probe(self.settings.health_s))
            probe.add_done_callback(self._probed)
            self._probes.append(probe)
        await asyncio.shield(self._probes[0])

    def _probed(self, probe: "asyncio.Future[None]") -> None:
        self._probes.clear()
        if not probe.cancelled():
            probe.exception()  # whoever asked may be gone; asyncio would warn of it


def make_service(
    client: EngineClient,
    settings: Settings,
    chat_template: Path | None = None,
    name: str = "0",
) -> Service:
    """The service of an engine that has started. Raises TokenizerError, TemplateError.

    name  tells the metrics of this engine from those of others
    """
    tokenizer = tokenizer_of(client.info.tokenizer)
    template = None if chat_template is None else ChatTemplate(chat_template, tokenizer)
    metrics = Metrics()
    return Service(
        client=client,
        settings=settings,
        tokenizer=tokenizer,
        prompts=PromptBuilder(tokenizer, template),
        metrics=metrics,
        exposition=Exposition(metrics, client, settings.models[0], name),
        responses=ResponseStore(settings.response_store_mib << 20),
    )
