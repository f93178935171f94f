"""SpeculativeConfig: how next tokens are guessed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from haast.errors import ConfigError

LOOKUP = (3, 5)
"""Shortest and longest n-gram that drafts are looked up by, if nobody wishes for one"""
MOST_DRAFTED = 63
"""Tokens after one in a step, and of an n-gram"""


@dataclass(frozen=True)
class SpeculativeConfig:
    """Guesses at a request's next tokens, verified several a step; vLLM's names.

    method                  ngram: what followed where the request's last tokens stood before
    num_speculative_tokens  most that are guessed at a time
    prompt_lookup_min, prompt_lookup_max
                            last tokens that must have stood there, at least, and that are compared;
                            one that is not given is as the other
    Raises ConfigError that names the field.
    """

    method: Literal["ngram"]
    num_speculative_tokens: int = 7
    prompt_lookup_min: int | None = None
    prompt_lookup_max: int | None = None

    def __post_init__(self) -> None:
        if self.method != "ngram":
            raise ConfigError(f"speculative_config: method must be ngram; got {self.method}")
        for name in ("num_speculative_tokens", "prompt_lookup_min", "prompt_lookup_max"):
            value = getattr(self, name)
            is_absent = value is None and name != "num_speculative_tokens"
            if not is_absent and (type(value) is not int or not 1 <= value <= MOST_DRAFTED):
                raise ConfigError(
                    f"speculative_config: {name} must be a whole number from 1 to {MOST_DRAFTED}; "
                    f"got {value!r}"
                )
        shortest, longest = self.lookup
        if shortest > longest:
            raise ConfigError(
                f"speculative_config: prompt_lookup_min {shortest} exceeds prompt_lookup_max "
                f"{longest}"
            )

    @property
    def lookup(self) -> tuple[int, int]:
        """Shortest and longest n-gram."""
        shortest, longest = self.prompt_lookup_min, self.prompt_lookup_max
        return (shortest or longest or LOOKUP[0], longest or shortest or LOOKUP[1])

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "SpeculativeConfig":
        """From the names and values of a JSON object. Raises ConfigError."""
        known = cls.__dataclass_fields__
        if unknown := [name for name in fields if name not in known]:
            raise ConfigError(
                f"speculative_config: no field {unknown[0]!r}; there are {', '.join(known)}"
            )
        if "method" not in fields:
            raise ConfigError("speculative_config: method is missing; it must be ngram")
        return cls(**fields)
