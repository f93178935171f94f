"""How one request samples and when it stops. Pure Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from haast.errors import HaastError

MAX_SEQUENCES = 128
MAX_LOGPROBS = 20
MAX_BIAS = 100
"""Largest n, number of alternatives and |bias|, as in the OpenAI API"""
_WHOLE = ("top_k", "seed", "max_new_tokens", "min_tokens", "n", "logprobs")
_NUMBERS = (
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)


class SamplingError(HaastError):
    """A sampling setting outside its range."""


@dataclass(frozen=True)
class SamplingParams:
    """How to pick tokens and when to stop. The defaults are the ones gpt-oss was tuned with.

    temperature         0 = always the most likely token
    top_k               keep the k most likely tokens; None = all
    top_p               then keep the most likely tokens up to this mass, in (0, 1]
    min_p               then drop tokens less likely than this share of the most likely, in [0, 1]
    repetition_penalty  logits of tokens seen in prompt or answer are divided by it where positive
                        and multiplied by it where negative; 1 = off
    presence_penalty    taken off the logits of tokens that the answer has
    frequency_penalty   taken off the logit of a token each time that the answer has it
    logit_bias          token id -> what to add to its logit
    seed                None = a different stream every time
    max_new_tokens      None = as many as fit
    min_tokens          no stop token ends the answer before it has this many tokens
    stop                texts that end the answer, which they are not part of; never sought in
                        reasoning
    stop_token_ids      tokens that end the answer besides the model's own, also with ignore_eos
    ignore_eos          go on after the model's own stop tokens
    n                   how many answers; each has its own stream of random numbers
    grammar             what the answer has to be from its first token on, in llguidance's notation;
                        the answer ends where the grammar does, whatever min_tokens and ignore_eos
    allowed_token_ids   the only tokens that are ever sampled; None = all
    logprobs            log-probability of each token, and of this many most likely ones; None = no
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
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    stop_token_ids: Sequence[int] = ()
    min_tokens: int = 0
    n: int = 1
    logprobs: int | None = None
    grammar: str | None = None
    allowed_token_ids: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in (*_WHOLE, *_NUMBERS):
            self._check_type(name, int if name in _WHOLE else (int, float))
        for name, holds, allowed in (*self._drawing(), *self._ending()):
            if not holds:
                raise SamplingError(f"{name} must be {allowed}; got {getattr(self, name)!r}")

    def _drawing(self) -> tuple[tuple[str, bool, str], ...]:
        """Setting, whether it is allowed, and what is: those that say how tokens are drawn."""
        penalty = "in [-2, 2]"
        bias = (self.logit_bias or {}).items()
        return (
            ("temperature", 0 <= self.temperature < float("inf"), "a finite number >= 0"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1"),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1]"),
            ("min_p", 0 <= self.min_p <= 1, "in [0, 1]"),
            ("seed", self.seed is None or 0 <= self.seed < 1 << 64, "in [0, 2^64)"),
            (
                "repetition_penalty",
                0 < self.repetition_penalty < float("inf"),
                "a finite number > 0",
            ),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, penalty),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, penalty),
            (
                "logit_bias",
                all(_is_token_id(i) and _is_bias(value) for i, value in bias),
                f"token ids with numbers in [-{MAX_BIAS}, {MAX_BIAS}]",
            ),
            (
                "logprobs",
                self.logprobs is None or 0 <= self.logprobs <= MAX_LOGPROBS,
                f"in [0, {MAX_LOGPROBS}]",
            ),
        )

    def _ending(self) -> tuple[tuple[str, bool, str], ...]:
        """The same of those that say how many answers there are and when they end."""
        limit = self.max_new_tokens
        return (
            ("max_new_tokens", limit is None or limit >= 1, "at least 1"),
            ("stop", self.stop != "" and all(self.stop), "one or more texts, none empty"),
            ("stop_token_ids", all(map(_is_token_id, self.stop_token_ids)), "token ids"),
            (
                "min_tokens",
                0 <= self.min_tokens and (limit is None or self.min_tokens <= limit),
                "at least 0 and at most max_new_tokens",
            ),
            ("grammar", self.grammar is None or _is_text(self.grammar), "a text, not empty"),
            (
                "allowed_token_ids",
                self.allowed_token_ids is None or _are_token_ids(self.allowed_token_ids),
                "one or more token ids",
            ),
            ("n", 1 <= self.n <= MAX_SEQUENCES, f"in [1, {MAX_SEQUENCES}]"),
        )

    def _check_type(self, name: str, kinds: type | tuple[type, ...]) -> None:
        value = getattr(self, name)
        is_absent = value is None and getattr(SamplingParams, name) is None
        if not is_absent and (not isinstance(value, kinds) or isinstance(value, bool)):
            allowed = "a whole number" if kinds is int else "a number"
            raise SamplingError(f"{name} must be {allowed}; got {value!r}")

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


def _is_token_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_token_ids(values: Sequence[Any]) -> bool:
    return len(values) > 0 and all(map(_is_token_id, values))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_bias(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and isfinite(value) and abs(value) <= MAX_BIAS
