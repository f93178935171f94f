"""Limits: how much of everything there may be at once. Pure Python."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a step, a request and the queue may grow to; see `haast.config.EngineConfig`.

    A step has room for all decodes: max_batch_input_tokens >= max_batch_size.
    """

    max_length: int
    max_batch_size: int
    max_batch_input_tokens: int = 8192
    max_queue_size: int = 4096
    enable_in_flight_batching: bool = True

    def __post_init__(self) -> None:
        assert self.max_batch_input_tokens >= self.max_batch_size, self
