"""Fields of a request besides those we honour: known and refused, harmless, or unknown."""

import logging
from collections.abc import Mapping
from typing import Any

from haast.serve.errors import invalid
from haast.serve.protocol import Body

_log = logging.getLogger(__name__)
_NO: tuple[Any, ...] = (False,)
_NONE: tuple[Any, ...] = ()
REFUSED: dict[str, tuple[Any, ...]] = {
    "structural_tag": _NONE,
    "best_of": (1,),
    "use_beam_search": _NO,
    "length_penalty": (1, 1.0),
    "prompt_logprobs": _NONE,
    "bad_words": ([],),
    "logits_processors": _NONE,
    "truncate_prompt_tokens": _NONE,
    "include_stop_str_in_output": _NO,
    "return_token_ids": _NO,
    "return_tokens_as_token_ids": _NO,
    "repetition_detection": _NONE,
    "kv_transfer_params": _NONE,
    "logprob_token_ids": ([],),
    "vllm_xargs": ({},),
    "mm_processor_kwargs": ({},),
    "store": _NO,
    "service_tier": ("auto", "default"),
}
"""Known field -> the values at which it asks for nothing; any other one is a 400"""
REFUSED_IN_CHAT = REFUSED | {
    "functions": ([],),
    "function_call": ("auto", "none"),
    "modalities": (["text"],),
    "audio": _NONE,
    "prediction": _NONE,
    "web_search_options": _NONE,
    "moderation": _NONE,
    "verbosity": ("medium",),
    "echo": _NO,
    "add_generation_prompt": (True,),
    "continue_final_message": _NO,
    "skip_special_tokens": (True,),
    "chat_template": _NONE,
    "chat_template_kwargs": ({},),
    "documents": ([],),
}
REFUSED_IN_COMPLETIONS = REFUSED | {
    "suffix": ("",),
    "max_completion_tokens": _NONE,
    "thinking_token_budget": _NONE,
}
HARMLESS = frozenset(
    {
        "user",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",  # equal beginnings are found without
        "prompt_cache_retention",
        "parallel_tool_calls",  # the model writes one call a turn either way
        "spaces_between_special_tokens",
        "add_special_tokens",  # the vocabulary adds none
        "request_id",
    }
)
_reported: set[str] = set()


def check_extra(body: Body, refused: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse what we know and cannot honour; tell once of each field that we do not know.

    Raises ApiError 400 naming the field.
    """
    for name, value in (body.model_extra or {}).items():
        if name in refused:
            check_value(name, value, refused[name])
        elif name not in HARMLESS and name not in _reported and len(_reported) < 1000:
            _reported.add(name)
            _log.warning("requests have an unknown field %r, which is ignored", name[:100])


def check_value(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Refuse a field unless it asks for nothing; ApiError 400."""
    if value is None or any(type(value) is type(one) and value == one for one in allowed):
        return
    what = ", ".join(map(repr, allowed)) or "null"
    raise invalid(name, f"{name} is not supported; allowed: {what}", code="unsupported_parameter")
