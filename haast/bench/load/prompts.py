"""Requests to send: prompts that no request before had, and answers of a known length."""

import random
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

Endpoint = Literal["completions", "chat"]
PATHS: dict[Endpoint, str] = {
    "completions": "/v1/completions",
    "chat": "/v1/chat/completions",
}
TEXT_TOKENS = 199_998
"""Ids of gpt-oss's vocabulary below this one are text, those from it on special tokens"""
TOKENS_A_WORD = 2
"""Of gpt-oss's vocabulary: a blank and a number of three digits"""


@dataclass(frozen=True)
class Requests:
    """What is asked.

    input_len   tokens of a prompt; of a chat about so many, which the usage tells exactly
    vocab_size  token ids of prompts are drawn evenly from below this one
    seed        prompts are a function of it and of a request's key
    """

    model: str
    endpoint: Endpoint = "completions"
    input_len: int = 1024
    output_len: int = 128
    temperature: float = 1.0
    vocab_size: int = TEXT_TOKENS
    seed: int = 0

    @property
    def path(self) -> str:
        return PATHS[self.endpoint]

    def body(self, *key: int) -> bytes:
        """The body of one request. Its prompt differs from that of any other key."""
        draw = random.Random(f"{self.seed} {key}")
        fields: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.output_len,
            "min_tokens": self.output_len,
            "ignore_eos": True,
            "temperature": self.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.endpoint == "chat":
            count = max(1, self.input_len // TOKENS_A_WORD)
            words = " ".join(map(str, draw.choices(range(100, 1000), k=count)))
            fields["messages"] = [{"role": "user", "content": words}]
        else:
            fields["prompt"] = draw.choices(range(self.vocab_size), k=self.input_len)
        return msgspec.json.encode(fields)
