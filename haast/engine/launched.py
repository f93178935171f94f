"""Launched: a step on the device, from its launch to its samples on the host."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from haast.engine.extras import Logprobs
from haast.engine.inputs import Layout
from haast.engine.step import Step, StepResult

if TYPE_CHECKING:
    from haast.engine.runner import TorchRunner

Sampled = tuple[Tensor, Callable[[], Logprobs] | None]
"""Token ids of a step, and what later gives their log-probabilities"""


class Launched:
    """A step whose samples are on their way to the host, or whose logits wait for masks."""

    def __init__(self, runner: "TorchRunner", step: Step, layout: Layout, logits: Tensor) -> None:
        self._runner = runner
        self._unsampled: tuple[Step, Layout, Tensor] | None = (step, layout, logits)
        self._logprobs: Callable[[], Logprobs] | None = None
        self._done: torch.cuda.Event | None = None
        self._token_ids = logits

    def masks(self) -> memoryview:
        """Memory for the masks of the step."""
        assert self._unsampled is not None
        return self._runner.masks(self._unsampled[0])

    def sample(self) -> None:
        """Start the sampling, with the masks."""
        assert self._unsampled is not None
        self.take(*self._runner.sample(*self._unsampled))

    def take(self, token_ids: Tensor, logprobs: Callable[[], Logprobs] | None) -> None:
        """Copy what is sampled to the host, without waiting."""
        self._unsampled = None
        self._logprobs = logprobs
        self._token_ids = token_ids
        if token_ids.is_cuda:
            host = torch.empty(len(token_ids), dtype=torch.int64, pin_memory=True)
            stream = _copies(token_ids.device)
            stream.wait_stream(torch.cuda.current_stream(token_ids.device))
            with torch.cuda.stream(stream):
                self._token_ids = host.copy_(token_ids, non_blocking=True)
            token_ids.record_stream(stream)
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record(stream)

    def wait(self) -> StepResult:
        """Its samples; raises what went wrong on the device."""
        if self._unsampled is not None:
            if self._token_ids.is_cuda:  # the step was given up: there is no event to wait for
                torch.cuda.current_stream(self._token_ids.device).synchronize()
            return StepResult([])
        if self._done is not None:
            started, team = perf_counter(), self._runner.team
            with team.waiting() if team else nullcontext():
                self._done.synchronize()
            self._runner.waited_s += perf_counter() - started
        return StepResult(self._token_ids.tolist(), self._logprobs and self._logprobs())


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """On which tokens go to the host while the next step is computed."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
