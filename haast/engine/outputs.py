"""What comes of steps: news of requests, and the ways in which steps fail. Pure Python."""

from typing import NamedTuple, NoReturn

from haast.engine.request import FinishReason, Request, TokenLogprobs
from haast.errors import HaastError


class Output(NamedTuple):
    """What one step gave one request; the last of a request is the one with a finish reason.

    token_id  None if it ended without one: cancelled or with an error
    """

    request: Request
    token_id: int | None
    logprobs: TokenLogprobs | None
    finish_reason: FinishReason | None


class EngineDeadError(HaastError):
    """The runner cannot run another step: nothing that a caller could mend but by starting again.

    outputs  the last of every request that had not ended
    """

    def __init__(self, reason: str, outputs: list[Output]) -> None:
        super().__init__(f"the engine is dead: {reason}")
        self.reason = reason
        self.outputs = outputs


class FailedLaunch:
    """A step that could not be launched; its error comes in its turn, after earlier steps."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def wait(self) -> NoReturn:
        raise self._error

    masks = sample = wait
