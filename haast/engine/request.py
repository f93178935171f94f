"""What one user asked for and how far it has come. Pure Python, token ids only."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from haast.errors import HaastError

FinishReason = Literal["stop", "length"]


class SamplingError(HaastError):
    """A sampling setting outside its range."""


@dataclass(frozen=True)
class SamplingParams:
    """How to pick tokens and when to stop. The defaults are the ones gpt-oss was tuned with.

    temperature     0 = always the most likely token
    top_k           keep the k most likely tokens; None = all
    top_p           then keep the most likely tokens up to this mass, in (0, 1]
    min_p           then drop tokens less likely than this share of the most likely, in [0, 1]
    seed            None = a different stream every time
    max_new_tokens  None = as many as fit
    stop            texts that end the answer, which they are not part of; never sought in reasoning
    ignore_eos      go on after the model's own stop tokens
    Raises SamplingError naming the setting, its value and what is allowed.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    max_new_tokens: int | None = None
    stop: str | Sequence[str] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        whole = ("top_k", "seed", "max_new_tokens")
        for name in (*whole, "temperature", "top_p", "min_p"):
            self._check_type(name, int if name in whole else (int, float))
        checks = (
            ("temperature", 0 <= self.temperature < float("inf"), "a finite number >= 0"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1"),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1]"),
            ("min_p", 0 <= self.min_p <= 1, "in [0, 1]"),
            ("seed", self.seed is None or 0 <= self.seed < 1 << 64, "in [0, 2^64)"),
            (
                "max_new_tokens",
                self.max_new_tokens is None or self.max_new_tokens >= 1,
                "at least 1",
            ),
            ("stop", self.stop != "" and all(self.stop), "one or more texts, none empty"),
        )
        for name, holds, allowed in checks:
            if not holds:
                raise SamplingError(f"{name} must be {allowed}; got {getattr(self, name)!r}")

    def _check_type(self, name: str, kinds: type | tuple[type, ...]) -> None:
        value = getattr(self, name)
        is_absent = value is None and getattr(SamplingParams, name) is None
        if not is_absent and (not isinstance(value, kinds) or isinstance(value, bool)):
            allowed = "a whole number" if kinds is int else "a number"
            raise SamplingError(f"{name} must be {allowed}; got {value!r}")

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


@dataclass(eq=False)
class Request:
    """One generation in progress; equal only to itself."""

    prompt_ids: Sequence[int]
    params: SamplingParams
    seed: int
    max_new_tokens: int
    stop_ids: frozenset[int]
    output_ids: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    num_computed: int = 0
    finish_reason: FinishReason | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def max_tokens(self) -> int:
        """Positions it may come to need."""
        return len(self.prompt_ids) + self.max_new_tokens

    def pending_ids(self, limit: int) -> list[int]:
        """The next tokens, at most `limit`, whose keys and values are not yet computed."""
        start = self.num_computed
        if start >= len(self.prompt_ids):
            return self.output_ids[start - len(self.prompt_ids) :][:limit]
        return list(self.prompt_ids[start : start + limit])

    def append(self, token_id: int) -> None:
        """Take a generated token; sets `finish_reason` if it is the last."""
        self.output_ids.append(token_id)
        if token_id in self.stop_ids and not self.params.ignore_eos:
            self.finish_reason = "stop"
        elif len(self.output_ids) >= self.max_new_tokens:
            self.finish_reason = "length"
