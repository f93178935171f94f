"""Runs requests to their end: admit, compute, sample. Knows token ids, not text."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from haast import ops
from haast.config import Plan
from haast.engine.batch import sampling_tensors, step_tensors
from haast.engine.request import Request
from haast.errors import HaastError
from haast.model.gpt_oss import GptOss
from haast.model.kv_cache import PAGE_SIZE, KVCache

PREFILL_CHUNK = 512
"""Prompt tokens a step takes of a request; bounds the reference attention's score matrix."""


class RequestError(HaastError):
    """A request that this engine can never run."""


@dataclass(frozen=True)
class Progress:
    """What one step gave one request: a token, or None while its prompt is being read."""

    request: Request
    token_id: int | None


class Generator:
    """Batches requests over one model and its KV cache; every request keeps its pages to its end.

    One step computes either the next prompt chunk of one request, the longest admitted first, or
    one token of every running one.
    """

    def __init__(self, model: GptOss, plan: Plan) -> None:
        self.model = model
        self.plan = plan
        num_pages = plan.memory.num_pages
        self.kv = KVCache.empty(model.config, num_pages, num_pages, model.dtype, model.device)
        self.free_pages = list(range(plan.memory.num_pages))
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        """Queue a request; RequestError if it could not run even alone."""
        self.check(request)
        self.waiting.append(request)

    def check(self, request: Request) -> None:
        """Raise RequestError if the request could not run even alone."""
        vocab_size = self.model.config.vocab_size
        wrong = [i for i in request.prompt_ids if not 0 <= i < vocab_size]
        if not request.prompt_ids:
            raise RequestError("the prompt has no tokens")
        if wrong:
            raise RequestError(f"token id {wrong[0]} is not in the vocabulary of {vocab_size}")
        if request.max_tokens > self.plan.max_length:
            raise RequestError(
                f"prompt of {len(request.prompt_ids)} tokens and {request.max_new_tokens} new ones "
                f"exceed max_length {self.plan.max_length}"
            )

    def cancel(self, requests: Iterable[Request]) -> None:
        """Forget requests that have not ended; their pages are free at once."""
        for request in requests:
            if request in self.waiting:
                self.waiting.remove(request)
            elif request in self.running:
                self._release(request)

    @torch.inference_mode()
    def step(self) -> list[Progress]:
        """Advance the batch; requests whose `finish_reason` is set afterwards have left it."""
        assert self.has_work, "a step needs a request"
        with ops.pin(self.plan.pins):
            self._admit()
            reading = [r for r in self.running if r.num_computed < len(r.prompt_ids)]
            batch = reading[:1] or self.running[:]
            token_ids, meta = step_tensors(batch, PREFILL_CHUNK, self.model.device)
            hidden = self.model.forward(token_ids, meta, self.kv)
            for request, length in zip(batch, meta.kv_lens.tolist(), strict=True):
                request.num_computed = length
            if any(r.num_computed < r.num_tokens for r in batch):
                return [Progress(r, None) for r in batch]
            return self._sample(batch, hidden[meta.cu_seqlens_q[1:].long() - 1])

    def _sample(self, batch: list[Request], hidden: torch.Tensor) -> list[Progress]:
        logits = self.model.logits(hidden)
        sampling = sampling_tensors(batch, logits.shape[1], logits.device)
        progress = []
        for request, token_id in zip(batch, ops.sample(logits, sampling).tolist(), strict=True):
            request.append(token_id)
            progress.append(Progress(request, token_id))
        for request in batch:
            if request.finish_reason is not None:
                self._release(request)
        return progress

    def _admit(self) -> None:
        """Start waiting requests, first come first served, while a row and pages are free."""
        while self.waiting and len(self.running) < self.plan.max_batch_size:
            if not self._take_pages(self.waiting[0]):
                break
            self.running.append(self.waiting.popleft())

    def _release(self, request: Request) -> None:
        self.running.remove(request)
        self._give_back_pages(request)

    @contextmanager
    def holding_pages(self, request: Request) -> Iterator[None]:
        """Pages for a request that is run by someone else; the engine must be idle."""
        assert not self.has_work and self._take_pages(request), (self.running, request)
        try:
            yield
        finally:
            self._give_back_pages(request)

    def _take_pages(self, request: Request) -> bool:
        """Pages for all positions the request may need; False if there are too few."""
        num_pages = -(-request.max_tokens // PAGE_SIZE)
        if num_pages > len(self.free_pages):
            return False
        request.pages = [self.free_pages.pop() for _ in range(num_pages)]
        return True

    def _give_back_pages(self, request: Request) -> None:
        self.free_pages += request.pages
        request.pages = []
