"""Step: what one forward pass computes; Runner: who computes it. Pure Python."""

from typing import NamedTuple, Protocol

from haast.engine.request import Request, TokenLogprobs

IN_FLIGHT = -1
"""Stands for a token id that the previous step samples and the host does not know yet"""


class Step:
    """Rows of one forward pass as parallel lists: decodes first, then chunks of prefills.

    requests    whose row it is
    starts      position of the row's first token
    counts      its tokens; 1 for a decode
    samples     whether a token is sampled after the row's last one
    input_ids   the token of each decode, IN_FLIGHT if the previous step samples it
    input_rows  where it is then found among that step's samples, else -1
    sampling    requests of the rows that sample, in order; a StepResult is parallel to it
    masked      rows of `sampling` that a mask constrains, in order
    drafts      (row, count): so many decodes after this one are of the same request, at the
                positions after it, and their tokens are guesses; see `haast.engine.drafts`
    is_awaited  whether it is committed before the next one is scheduled, for the sake of `drafts`
    leaving     ended requests whose pages are held until this step has run

    The runner copies what it needs in `launch`: a request's page lists and output change with later
    steps. Page lists change only at their ends, and in entries that left the window, as long as
    the runner is not told to forget the request.
    """

    __slots__ = (
        "counts",
        "drafts",
        "input_ids",
        "input_rows",
        "is_awaited",
        "leaving",
        "masked",
        "num_tokens",
        "requests",
        "samples",
        "sampling",
        "starts",
    )

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.starts: list[int] = []
        self.counts: list[int] = []
        self.samples: list[bool] = []
        self.input_ids: list[int] = []
        self.input_rows: list[int] = []
        self.sampling: list[Request] = []
        self.masked: list[int] = []
        self.drafts: list[tuple[int, int]] = []
        self.is_awaited = False
        self.leaving: list[Request] = []
        self.num_tokens = 0

    @property
    def num_decodes(self) -> int:
        return len(self.input_ids)

    def chunk_ids(self, row: int) -> list[int]:
        """Tokens of a prefill's row."""
        start = self.starts[row]
        return self.requests[row].token_ids(start, start + self.counts[row])

    def token_ids(self) -> list[int]:
        """Tokens of all rows, one after the other."""
        ids = self.input_ids[:]
        for row in range(self.num_decodes, len(self.requests)):
            ids += self.chunk_ids(row)
        return ids


class StepResult(NamedTuple):
    """What a step sampled: a token, and where asked for its log-probabilities, a sampling row."""

    token_ids: list[int]
    logprobs: list[TokenLogprobs | None] | None = None


class Pending(Protocol):
    """A launched step."""

    def wait(self) -> StepResult:
        """Its result once it has run; raises what went wrong. Without its samples if a step with
        masked rows was never sampled.
        """
        ...

    def masks(self) -> memoryview:
        """Of a step with masked rows: bytes for their masks, one after the other; see
        `haast.engine.masks`. Only after every earlier step has been waited for.
        """
        ...

    def sample(self) -> None:
        """Of a step with masked rows: start what is left of it, without waiting."""
        ...


class Runner(Protocol):
    """Computes steps in the order in which they are launched.

    Until a request has min_tokens tokens its `end_ids` must not be sampled.

    num_short_steps  steps whose logits came by way of a shadow head
    """

    num_short_steps: int

    def launch(self, step: Step) -> Pending:
        """Start a step without waiting for it or for an earlier one.

        One with masked rows is started up to its logits: while these are computed the tokens come
        that its masks depend on. `Pending.sample` follows before the next launch.
        """
        ...

    def forget(self, request: Request) -> None:
        """No later step continues the request. If it appears again it is as if it were new: its
        page lists were replaced, and it starts with a chunk of all its tokens.
        """
        ...

    def is_alive(self) -> bool:
        """Whether another step can run after one that raised."""
        ...
