"""The body of POST /v1/responses: the fields that we honour, and what of them we cannot."""

from typing import Any, cast, get_args

from pydantic import BaseModel, ConfigDict

from haast.engine.request import SamplingParams
from haast.harmony.messages import Effort
from haast.serve.chat import nearest_effort
from haast.serve.errors import invalid
from haast.serve.fields import REFUSED_IN_CHAT, check_extra, check_value
from haast.serve.protocol import GenerationBody, StreamOptions
from haast.serve.sampling import response_params

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
INCLUDABLE = (
    LOGPROBS,
    ENCRYPTED,
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)
"""What may be asked for; all but the first two are of tools that we do not run"""
MOVED = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "logprobs": "include",
}
"""Fields of chat completions -> where the Responses API has them"""
_NONE: tuple[Any, ...] = ()
_OWN = ("store", "service_tier", *MOVED)
REFUSED_IN_RESPONSES = {
    name: allowed for name, allowed in REFUSED_IN_CHAT.items() if name not in _OWN
} | {
    "conversation": _NONE,
    "prompt": _NONE,
    "moderation": _NONE,
    "context_management": ([],),
    "background_options": _NONE,
    "access_programs": _NONE,
    "image": _NONE,
}
_VALUES: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "service_tier": ("auto", "default"),
    "truncation": ("auto", "disabled"),
    "reasoning.summary": ("auto",),  # the best there is, which is none
    "reasoning.generate_summary": ("auto",),
    "reasoning.context": ("auto", "current_turn"),
    "reasoning.mode": ("standard",),
    "text.verbosity": ("medium",),
    "stream_options.include_obfuscation": (False,),
    "stream_options.continuous_usage_stats": (False,),
}
"""Field -> the values of it that we can honour"""
_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512


class ReasoningOptions(BaseModel):
    """How to think, and what to tell of it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: str | None = None
    mode: str | None = None


class TextOptions(BaseModel):
    """What the answer is to look like."""

    model_config = ConfigDict(extra="forbid", strict=True)
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponseStreamOptions(StreamOptions):
    """Usage always comes with the last event."""

    include_obfuscation: bool | None = None


class ResponseBody(GenerationBody):
    """POST /v1/responses."""

    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    background: bool | None = None
    include: list[str] | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    reasoning: ReasoningOptions | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    stream_options: ResponseStreamOptions | None = None
    text: TextOptions | None = None
    thinking_token_budget: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    top_logprobs: int | None = None
    truncation: str | None = None
    user: str | None = None

    @property
    def effort(self) -> Effort:
        """What gpt-oss is told; `check_body` has seen that there is such an effort."""
        given = self.reasoning.effort if self.reasoning else None
        return cast(Effort, nearest_effort(given))

    def includes(self, what: str) -> bool:
        return what in (self.include or ())

    def params(self) -> SamplingParams:
        """Raises ApiError 400 naming the field."""
        logprobs = (self.top_logprobs or 0) if self.includes(LOGPROBS) else None
        return response_params(self, self.max_output_tokens, logprobs)


def check_body(body: ResponseBody) -> None:
    """Raise ApiError 400 naming the first field that is wrong or that we cannot honour."""
    for name, place in MOVED.items():
        if getattr(body, name, None) is not None:
            message = f"Unsupported parameter: {name!r}. In the Responses API it is {place!r}."
            raise invalid(name, message, code="unsupported_parameter")
    check_extra(body, REFUSED_IN_RESPONSES)
    for path, allowed in _VALUES.items():
        value: Any = body
        for name in path.split("."):
            value = getattr(value, name, None)
        check_value(path, value, allowed)
    if body.effort not in get_args(Effort):
        allowed_efforts = ", ".join(get_args(Effort))
        message = f"reasoning.effort must be one of {allowed_efforts}; got {body.effort!r}"
        raise invalid("reasoning.effort", message)
    _check_include(body)
    _check_metadata(body.metadata or {})
    if not body.input and body.previous_response_id is None:
        raise invalid("input", "One of 'input' or 'previous_response_id' must be provided.")


def _check_include(body: ResponseBody) -> None:
    for index, what in enumerate(body.include or ()):
        if what not in INCLUDABLE:
            allowed = ", ".join(map(repr, INCLUDABLE))
            path = f"include[{index}]"
            message = f"{path}: invalid value {what!r}; supported values are {allowed}"
            raise invalid(path, message, code="invalid_value")
    if body.top_logprobs and not body.includes(LOGPROBS):
        message = f"top_logprobs is only allowed when include has {LOGPROBS!r}"
        raise invalid("top_logprobs", message)


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > _MAX_PAIRS:
        raise invalid("metadata", f"metadata has {len(metadata)} pairs; at most {_MAX_PAIRS}")
    for key, value in metadata.items():
        if len(key) > _MAX_KEY or len(value) > _MAX_VALUE:
            limits = f"{_MAX_KEY} characters a key, {_MAX_VALUE} a value"
            raise invalid("metadata", f"metadata has a pair that is too long; at most {limits}")
