"""What one user asked for and how far it has come. Pure Python, token ids only."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple

from haast.engine.masks import Constraint
from haast.engine.sampling_params import SamplingError, SamplingParams
from haast.errors import HaastError

if TYPE_CHECKING:
    from haast.engine.drafts import Drafts

__all__ = [
    "FinishReason",
    "QueueFullError",
    "Request",
    "RequestError",
    "SamplingError",
    "SamplingParams",
    "Status",
    "TokenLogprobs",
]
FinishReason = Literal["stop", "length", "cancelled", "error"]
"""stop: a stop token, or the end of its grammar; length: max_new_tokens; cancelled: by its user;
error: a step failed, or its grammar"""


class RequestError(HaastError):
    """A request that this engine can never run."""


class QueueFullError(HaastError):
    """Too many requests wait; the same one may be taken later."""


class Status(Enum):
    """Where the scheduler keeps a request."""

    PARKED = "parked"
    """waits for a sibling to compute the prompt that they share"""
    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    ENDED = "ended"


class TokenLogprobs(NamedTuple):
    """Log-probability of a generated token, and (token id, log-probability) of the likeliest."""

    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(eq=False, slots=True)
class Request:
    """One generation in progress; equal only to itself.

    The first group is what was asked for, the second what came of it. The rest is bookkeeping of
    the engine: `pages` are those of full-attention layers and `window_pages` those of sliding
    layers; entry i of either holds positions [i * page_size, (i + 1) * page_size), and is None once
    these have left the window.
    """

    prompt_ids: Sequence[int] = field(repr=False)
    params: SamplingParams
    seed: int
    max_new_tokens: int
    stop_ids: frozenset[int]
    """the model's own stop tokens"""
    priority: int = 0
    """lower = sooner"""
    salt: str | None = field(default=None, repr=False)
    """requests share cached prefixes only with those of the same salt"""
    constraint: Constraint | None = field(default=None, repr=False)
    """what its tokens are confined to; knows all of output_ids"""
    drafts: "Drafts | None" = field(default=None, repr=False)
    """guesses at its tokens, if that is wished for and can be"""

    output_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list, repr=False)
    """one an output token if asked for"""
    cached_tokens: int = 0
    """prompt tokens that were found in the prefix cache when it was first admitted"""
    num_preemptions: int = 0
    finish_reason: FinishReason | None = None
    error: str | None = None
    """why it ended, if that was an error"""

    status: Status = Status.WAITING
    order: tuple[int, int, int] = (0, 0, 0)
    """(priority, arrival, index among its siblings); the scheduler serves the smallest first"""
    num_computed: int = 0
    """positions whose keys and values exist once every launched step has run"""
    num_in_flight: int = 0
    """its tokens that launched steps sample and that are not yet in output_ids; if some of them
    follow guesses these are more than one, and it has no further row before they are known"""
    sample_row: int = 0
    """its row among the samples of the last step that sampled for it"""
    pages: list[int] = field(default_factory=list, repr=False)
    window_pages: list[int | None] = field(default_factory=list, repr=False)
    window_start: int = 0
    """first entry of window_pages that is still held"""
    next_event: int = 0
    """next position whose computation needs a page or lets one go; earlier ones cost no look"""
    page_keys: list[bytes] = field(default_factory=list, repr=False)
    """names of its complete pages in the prefix cache, as far as they were needed"""
    num_named: int = 0
    """leading pages that the prefix cache was told of"""
    has_siblings: bool = False
    """whether its prompt is shared with other answers to the same call"""
    leader: "Request | None" = field(default=None, repr=False)
    """the sibling it is parked behind"""
    siblings: "list[Request]" = field(default_factory=list, repr=False)
    """those parked behind it"""
    end_ids: frozenset[int] = field(init=False, repr=False)
    last_position: int = field(init=False, repr=False)
    """position of its last token if no stop token comes first; it is never computed"""

    def __post_init__(self) -> None:
        own = frozenset() if self.params.ignore_eos else self.stop_ids
        self.end_ids = own | frozenset(self.params.stop_token_ids)
        self.last_position = self.max_tokens - 1

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def has_prompt(self) -> bool:
        """Whether all of its prompt is computed."""
        return self.num_computed >= len(self.prompt_ids)

    @property
    def max_tokens(self) -> int:
        """Positions it may come to need."""
        return len(self.prompt_ids) + self.max_new_tokens

    def token_ids(self, start: int, stop: int) -> list[int]:
        """Tokens at positions [start, stop) of prompt and output."""
        split = len(self.prompt_ids)
        if start >= split:
            return self.output_ids[start - split : stop - split]
        ids = list(self.prompt_ids[start:stop])
        return ids + self.output_ids[: stop - split] if stop > split else ids

    def append(self, token_id: int) -> None:
        """Take a generated token; sets `finish_reason` if it is the last."""
        output_ids = self.output_ids
        output_ids.append(token_id)
        if token_id in self.end_ids and len(output_ids) >= self.params.min_tokens:
            self.finish_reason = "stop"
        elif self.constraint is not None and self.constraint.is_done:
            self.finish_reason = "stop"
        elif len(output_ids) >= self.max_new_tokens:
            self.finish_reason = "length"
