"""Request bodies: the fields that we honour. The others are in `haast.serve.fields`."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from haast.serve.errors import ApiError


class Body(BaseModel):
    """Any request. Null means: as if it were not given."""

    model_config = ConfigDict(extra="allow", strict=True)
    model: str | None = None


class StreamOptions(BaseModel):
    """What a stream tells besides the answer; `include_obfuscation` is accepted, adds nothing."""

    model_config = ConfigDict(extra="allow", strict=True)
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Reasoning(BaseModel):
    """OpenRouter's way to ask for reasoning."""

    model_config = ConfigDict(extra="forbid", strict=True)
    effort: str | None = None
    exclude: bool | None = None


class GenerationBody(Body):
    """What chat and plain completions share: how to sample, when to stop, how to answer."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    n: int | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    priority: int | None = None
    cache_salt: str | None = None
    allowed_token_ids: list[int] | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    reasoning_effort: str | None = None
    thinking_token_budget: int | None = None
    reasoning: Reasoning | None = None
    include_reasoning: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    max_completion_tokens: int | None = None


class CompletionBody(GenerationBody):
    """POST /v1/completions. A list of prompts gives a list of answers."""

    prompt: str | list[int] | list[str] | list[list[int]]
    echo: bool | None = None
    logprobs: int | None = None
    skip_special_tokens: bool | None = None


class TokenizeBody(Body):
    """POST /tokenize: a text, or a chat as it would be rendered."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    reasoning_effort: str | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    """POST /detokenize."""

    tokens: list[int]


B = TypeVar("B", bound=Body)


def parse(kind: type[B], data: bytes) -> B:
    """A body of a request. Raises ApiError 400 that names the field."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _bad_body(error) from None


def _bad_body(error: ValidationError) -> ApiError:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    first = errors[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON: {first['msg']}", code="invalid_json")
    if not first["loc"]:
        return ApiError(400, "the body must be a JSON object")
    name = first["loc"][0]
    about = [e for e in errors if e["loc"][:1] == (name,)]
    reasons = dict.fromkeys(e["msg"].removeprefix("Input ") for e in about)
    field = str(name) if len(reasons) > 1 else _path(first["loc"])
    return ApiError(400, f"{field}: {', or '.join(reasons)}", param=field)


def _path(loc: tuple[int | str, ...]) -> str:
    """`a[0].b` of a location, without the names that pydantic gives members of a union."""
    name = str(loc[0])
    for part in loc[1:]:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "int"):
            name += f".{part}"
    return name
