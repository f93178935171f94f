"""Fields of a request -> SamplingParams, and the check that prompt and answer fit."""

from typing import Any

from haast.engine.request import SamplingError, SamplingParams
from haast.serve.errors import ApiError, invalid
from haast.serve.protocol import ChatBody, CompletionBody, GenerationBody

_SAME = (
    "temperature",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "n",
    "min_tokens",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "allowed_token_ids",
)
"""Fields of a request that SamplingParams has by the same name"""


def chat_params(body: ChatBody) -> SamplingParams:
    """Raises ApiError 400 naming the field."""
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid("top_logprobs", "top_logprobs is only allowed when logprobs is true")
    limits = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise invalid("max_tokens", "max_tokens and max_completion_tokens differ; give one of them")
    is_new = body.max_completion_tokens is not None
    names = {
        "max_new_tokens": "max_completion_tokens" if is_new else "max_tokens",
        "logprobs": "top_logprobs",
    }
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return _params(body, names, logprobs=logprobs, max_new_tokens=limits.pop() if limits else None)


def completion_params(body: CompletionBody) -> SamplingParams:
    """OpenAI's default of 16 new tokens. Raises ApiError 400 naming the field."""
    limit = 16 if body.max_tokens is None else body.max_tokens
    if body.min_tokens is not None and body.max_tokens is None:
        limit = max(limit, body.min_tokens)
    names = {"max_new_tokens": "max_tokens"}
    return _params(body, names, logprobs=body.logprobs, max_new_tokens=limit)


def response_params(
    body: GenerationBody, max_output_tokens: int | None, logprobs: int | None
) -> SamplingParams:
    """Of the Responses API. Raises ApiError 400 naming the field."""
    names = {"max_new_tokens": "max_output_tokens", "logprobs": "top_logprobs"}
    return _params(body, names, logprobs=logprobs, max_new_tokens=max_output_tokens)


def _params(body: GenerationBody, names: dict[str, str], **own: Any) -> SamplingParams:
    """names: what a setting is called in the request, where that differs"""
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", "stream_options is only allowed when stream is true")
    given = {name: getattr(body, name) for name in _SAME} | own
    given["top_k"] = None if body.top_k in (-1, 0) else body.top_k  # vLLM's words for: all
    given["seed"] = _seed(body.seed)
    try:
        return SamplingParams(**{name: v for name, v in given.items() if v is not None})
    except SamplingError as error:
        setting, _, rest = str(error).partition(" ")
        field = names.get(setting, setting)
        for own_name, name in names.items():
            rest = rest.replace(own_name, name)
        raise invalid(field, f"{field} {rest}") from None


def _seed(seed: int | None) -> int | None:
    """Clients send signed 64-bit seeds; each has a stream of its own."""
    if seed is not None and -(1 << 63) <= seed < 0:
        return seed + (1 << 64)
    return seed


def check_length(
    prompt_ids: list[int], params: SamplingParams, max_length: int, where: str
) -> None:
    """Raise ApiError 400 with OpenAI's words if prompt and answer exceed the context.

    where  the field that the prompt came from
    """
    asked = params.max_new_tokens
    total = len(prompt_ids) + (asked or 1)
    if total <= max_length:
        return
    if asked is None or len(prompt_ids) >= max_length:
        need = f"your {where} resulted in {len(prompt_ids)} tokens"
        mend = f"Please reduce the length of the {where}."
    else:
        parts = f"{len(prompt_ids)} in the {where}, {asked} in the completion"
        need = f"you requested {total} tokens ({parts})"
        mend = f"Please reduce the length of the {where} or completion."
    message = f"This model's maximum context length is {max_length} tokens. However, {need}. {mend}"
    raise ApiError(400, message, param=where, code="context_length_exceeded")
