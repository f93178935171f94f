"""What comes of a prompt."""

from dataclasses import dataclass

from haast.engine.request import TokenLogprobs
from haast.harmony import ToolCall


@dataclass(frozen=True)
class Timings:
    """How long one request took; waiting for other requests of the same call included."""

    prompt_tokens: int
    generated_tokens: int
    ttft_s: float
    total_s: float

    @property
    def prompt_tokens_per_s(self) -> float:
        return self.prompt_tokens / self.ttft_s

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Speed after the first token; None if there was no other."""
        decode_s = self.total_s - self.ttft_s
        return (self.generated_tokens - 1) / decode_s if self.generated_tokens > 1 else None


@dataclass(frozen=True)
class Result:
    """A finished generation.

    text           the answer: harmony's final channel, after preambles if there are any
    reasoning      the analysis channel
    finish_reason  stop, length, tool_calls, or error if the device failed
    token_ids      every generated token, markers included
    logprobs       one a token if SamplingParams.logprobs asks for them
    error          why it ended, if that was an error
    cached_tokens  prompt tokens whose keys and values were found in the prefix cache
    anomalies      how often the model left the harmony format, by kind
    """

    text: str
    reasoning: str
    finish_reason: str
    token_ids: tuple[int, ...]
    prompt_token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    cached_tokens: int
    error: str | None
    tool_calls: tuple[ToolCall, ...]
    anomalies: dict[str, int]
    timings: Timings
