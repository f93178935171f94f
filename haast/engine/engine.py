"""Engine: runs requests to their ends over a Runner. Pure Python, token ids only."""

from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import repeat

from haast.engine.drafts import Drafter
from haast.engine.intake import Intake
from haast.engine.kv_pages import KVPages
from haast.engine.limits import Limits
from haast.engine.masks import Grammars, MaskFiller
from haast.engine.outputs import EngineDeadError, FailedLaunch, Output
from haast.engine.request import FinishReason, QueueFullError, Request, SamplingParams, Status
from haast.engine.scheduler import Scheduler
from haast.engine.step import Pending, Runner, Step, StepResult

__all__ = ["Engine", "EngineDeadError", "Output"]


class Engine:
    """Schedules, launches and commits steps.

    With two steps in flight the next one is scheduled and launched before the last one's result is
    waited for, as if every request went on. One that did end then has a row too many: its token is
    thrown away, and its pages are held until that step is committed.

    A step with constrained requests is sampled after the step before it is committed, which its
    masks depend on; meanwhile the device computes its logits.

    runner         computes the steps
    kv             the pages that it computes them on
    stop_ids       the model's own stop tokens
    max_in_flight  steps that may be launched and not committed: 1 or 2
    grammars       for requests with a grammar; None = there may be none
    drafter        guesses at tokens, which steps verify; None = nobody does
    """

    def __init__(
        self,
        runner: Runner,
        kv: KVPages,
        limits: Limits,
        vocab_size: int,
        stop_ids: frozenset[int],
        max_in_flight: int = 2,
        grammars: Grammars | None = None,
        drafter: Drafter | None = None,
    ) -> None:
        assert max_in_flight in (1, 2), max_in_flight
        self.runner = runner
        self.kv = kv
        self.limits = limits
        self.max_in_flight = max_in_flight
        self.drafter = drafter
        self.intake = Intake(kv, limits, vocab_size, stop_ids, grammars, drafter)
        self.scheduler = Scheduler(kv, limits, runner.forget, drafter)
        self._launched: deque[tuple[Step, Pending]] = deque()
        self._outputs: list[Output] = []
        self._masks = MaskFiller(grammars, vocab_size)
        self._num_constrained = 0
        self._num_arrived = 0
        self._dead_because: str | None = None

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do or to tell."""
        is_asked = self.scheduler.num_running or self.scheduler.waiting
        return bool(self._launched or self._outputs or is_asked)

    def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        salt: str | None = None,
    ) -> list[Request]:
        """Queue the params.n answers to a prompt; each ends in one Output with a finish reason.

        priority  lower = sooner
        salt      prefixes are shared only with requests of the same salt
        Raises RequestError if they could never run, QueueFullError if too many wait and
        EngineDeadError.
        """
        requests = self.intake.requests(prompt_ids, params, priority=priority, salt=salt)
        self.enqueue(requests)
        return requests

    def enqueue(self, requests: Sequence[Request]) -> None:
        """Queue the requests of one call that `intake` made; errors as in `submit`."""
        self._raise_if_dead()
        if not self.has_room(len(requests)):
            raise QueueFullError(
                f"{len(self.scheduler.waiting)} requests wait; {len(requests)} more exceed "
                f"max_queue_size {self.limits.max_queue_size}"
            )
        self._num_arrived += 1
        for index, request in enumerate(requests):
            request.order = (request.priority, self._num_arrived, index)
            self._num_constrained += request.constraint is not None
        self.scheduler.waiting.add_siblings(requests)

    def has_room(self, num_requests: int) -> bool:
        """Whether so many more may wait."""
        return len(self.scheduler.waiting) + num_requests <= self.limits.max_queue_size

    def cancel(self, requests: Iterable[Request]) -> None:
        """End requests that have not ended; the next step tells so, and frees their pages."""
        for request in requests:
            if request.finish_reason is None:
                self._end(request, "cancelled")

    def step(self) -> list[Output]:
        """Launch a step, and commit one if enough are in flight or no other can be launched.

        Raises EngineDeadError after an error of a runner that is not alive, RuntimeError if pages
        were lost.
        """
        self._raise_if_dead()
        step = self.scheduler.schedule(is_idle=not self._launched)
        if step is not None:
            self._launch(step)
        if len(self._launched) > 1:
            self._commit()
        if step is not None and step.masked:
            self._sample(step)
        if self._launched and (step is None or self.max_in_flight == 1 or step.is_awaited):
            self._commit()
        if not (self._launched or self.scheduler.num_running or self.scheduler.waiting):
            self.kv.check_idle()
        outputs, self._outputs = self._outputs, []
        return outputs

    def _launch(self, step: Step) -> None:
        if self._num_constrained:
            step.masked = [i for i, r in enumerate(step.sampling) if r.constraint is not None]
        try:
            self._launched.append((step, self.runner.launch(step)))
        except Exception as error:  # whatever it is, it must not take other requests along
            self._launched.append((step, FailedLaunch(error)))
            while self._launched:
                self._commit()

    def _sample(self, step: Step) -> None:
        """Start the sampling of a step with masked rows, unless it has failed meanwhile."""
        if not self._launched:
            return
        ((_, pending),) = self._launched
        try:
            for request, why in self._masks.fill(step, pending.masks()):
                self._end(request, "error", why)
            pending.sample()
        except Exception as error:  # as in _launch
            self._launched.clear()
            with suppress(Exception):  # the device may not write pages that are given away
                pending.wait()
            self._fail(step, f"{type(error).__name__}: {error}")

    def _commit(self) -> None:
        step, pending = self._launched.popleft()
        try:
            result = pending.wait()
        except Exception as error:  # as in _launch
            self._fail(step, f"{type(error).__name__}: {error}")
            return
        self._take(step, result)
        for request in step.leaving:
            self.kv.release(request)
        self.scheduler.num_leaving -= len(step.leaving)

    def _take(self, step: Step, result: StepResult) -> None:
        """Give a step's tokens to those of its requests that have not ended."""
        token_ids, logprobs = result
        assert len(token_ids) == len(step.sampling), (len(token_ids), len(step.sampling))
        for row in step.masked:
            self._advance(step.sampling[row], token_ids[row])
        tell, ended = self._outputs.append, list[Request]()
        settled = self.drafter.settle(step, token_ids) if self.drafter else token_ids
        for request, token_id, of_token in zip(
            step.sampling, settled, logprobs or repeat(None), strict=False
        ):
            request.num_in_flight -= 1
            if request.finish_reason is not None or token_id is None:
                continue
            request.append(token_id)
            if of_token is not None:
                request.logprobs.append(of_token)
            if request.finish_reason is not None:
                ended.append(request)
            tell(Output(request, token_id, of_token, request.finish_reason))
        for request in ended:
            self._leave(request)

    def _advance(self, request: Request, token_id: int) -> None:
        """Let a constrained request's grammar know of its token."""
        if request.finish_reason is None and request.constraint is not None:
            why = request.constraint.consume(token_id)
            if why is not None:
                self._end(request, "error", f"the grammar refuses a sampled token: {why}")

    def _end(self, request: Request, reason: FinishReason, error: str | None = None) -> None:
        """End a request without a token."""
        request.finish_reason, request.error = reason, error
        self._outputs.append(Output(request, None, None, reason))
        self._leave(request)

    def _leave(self, request: Request) -> None:
        """Take out a request that ended; its pages are free once no launched step uses them."""
        self._num_constrained -= request.constraint is not None
        is_computed = request.status is Status.DECODING and not request.num_in_flight
        self.scheduler.remove(request)
        if self._launched and request.pages and not is_computed:
            self._launched[-1][0].leaving.append(request)
            self.scheduler.num_leaving += 1
        else:
            self.kv.release(request)

    def _fail(self, step: Step, reason: str) -> None:
        """End the requests of a step that failed and of those launched after it."""
        steps = [step, *(later for later, _ in self._launched)]
        for _, pending in self._launched:  # the device may not write pages that are given away
            with suppress(Exception):  # the first error is the one to tell
                pending.wait()
        self._launched.clear()
        for failed in steps:
            for request in failed.requests:
                if request.finish_reason is None:
                    self._end(request, "error", reason)
            for request in failed.leaving:
                self.kv.release(request)
        self.scheduler.num_leaving = 0
        self.kv.prefixes.clear()  # it may name pages that were not computed
        self.kv.check()
        if not self.runner.is_alive():
            self._die(reason)

    def _die(self, reason: str) -> None:
        self._dead_because = reason
        scheduler = self.scheduler
        for request in [*scheduler.decoding, *scheduler.prefilling]:
            self._end(request, "error", reason)
        while (first := scheduler.waiting.first) is not None:
            self._end(first, "error", reason)
        self._raise_if_dead()

    def _raise_if_dead(self) -> None:
        if self._dead_because is not None:
            outputs, self._outputs = self._outputs, []
            raise EngineDeadError(self._dead_because, outputs)
