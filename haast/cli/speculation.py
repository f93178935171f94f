"""--speculative-config: how next tokens are guessed, as vLLM's option of that name."""

import json
from typing import Any

import click

from haast.config import SpeculativeConfig


class _Speculation(click.ParamType[SpeculativeConfig]):
    """A JSON object, or from a file of options a mapping."""

    name = "json"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> SpeculativeConfig:
        if isinstance(value, SpeculativeConfig):
            return value
        try:
            fields = json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError as error:
            self.fail(f"{value!r} is no JSON: {error}", param, ctx)
        if not isinstance(fields, dict):
            self.fail(f"{value!r} is no JSON object", param, ctx)
        return SpeculativeConfig.of(fields)


speculative_option = click.option(
    "--speculative-config",
    "-sc",
    type=_Speculation(),
    metavar="JSON",
    help="Guess next tokens where a text repeats itself, and verify several a step: "
    '\'{"method": "ngram"}\', also with num_speculative_tokens, prompt_lookup_min and '
    "prompt_lookup_max. Default: no guesses.",
)
