"""Scheduler: waiting and running requests -> the next Step. Pure Python."""

from bisect import insort
from collections.abc import Callable

from haast.engine.drafts import Drafter
from haast.engine.kv_pages import KVPages
from haast.engine.limits import Limits
from haast.engine.request import Request, Status
from haast.engine.step import IN_FLIGHT, Step
from haast.engine.waiting import ORDER, WaitingQueue, remove_ordered


class Scheduler:
    """Serves requests by (priority, arrival), which is the order of each of its lists.

    A step takes all decodes, then chunks of prompts until its tokens are used up. Whoever is
    admitted has full-attention pages for all its known tokens; a decode that finds no page takes
    those of the last request in order, which is computed again later. At least the first request
    in order always progresses, so that all end.

    num_leaving  ended requests that still hold pages until a launched step has run
    forget       called when a request leaves the running ones, before the next step
    drafter      adds guesses to the decodes; None = nobody does
    """

    def __init__(
        self,
        kv: KVPages,
        limits: Limits,
        forget: Callable[[Request], None],
        drafter: Drafter | None,
    ) -> None:
        self.kv = kv
        self.limits = limits
        self.waiting = WaitingQueue()
        self.prefilling: list[Request] = []
        self.decoding: list[Request] = []
        self.num_leaving = 0
        self.num_preemptions = 0
        self.drafter = drafter
        self._forget = forget
        self._chunked: list[Request] = []
        """those with a chunk in the last step"""
        self._may_admit = True

    @property
    def num_running(self) -> int:
        return len(self.prefilling) + len(self.decoding)

    def schedule(self, is_idle: bool) -> Step | None:
        """The next step, or None if nothing can run before a launched step is committed.

        Its rows count as computed from now on. `is_idle` says that no launched step is left.
        """
        self._look_after_chunked()
        while True:
            num_preemptions = self.num_preemptions
            step = self._fill()
            if step.requests or not is_idle:
                return step if step.requests else None
            if self.num_preemptions > num_preemptions:
                continue  # what was taken from the last in order is there for the others
            if self.num_running < 2:
                assert not self.num_running and not self.waiting, self._describe()
                return None
            self._preempt(self._last())

    def remove(self, request: Request) -> None:
        """Take an ended request out of its list; its pages stay as they are."""
        if request.status in (Status.WAITING, Status.PARKED):
            self.waiting.remove(request)
        else:
            is_decoding = request.status is Status.DECODING
            remove_ordered(self.decoding if is_decoding else self.prefilling, request)
            self._forget(request)
        request.status = Status.ENDED
        if request.siblings:
            self.kv.prefixes.register(request)
            self.waiting.unpark(request, request.finish_reason != "error" and request.has_prompt)

    def _fill(self) -> Step:
        step = Step()
        self._may_admit = True
        if self.limits.enable_in_flight_batching:
            self._add_decodes(step)
            self._add_chunks(step)
        else:
            self._add_chunks(step)
            if not step.requests:
                self._add_decodes(step)
        return step

    def _add_decodes(self, step: Step) -> None:
        """One token of every request that may go on; this loop is the host's cost of a step."""
        requests, starts = step.requests, step.starts
        input_ids, input_rows = step.input_ids, step.input_rows
        drafter, row = self.drafter, 0
        # A preemption in the loop removes requests from the end of the list: none before this one.
        for request in self.decoding:
            position = request.num_computed
            if position == request.last_position or request.num_in_flight > 1:
                continue
            if position >= request.next_event and not self._has_page(request, position):
                continue
            requests.append(request)
            starts.append(position)
            if request.num_in_flight:
                input_ids.append(IN_FLIGHT)
                input_rows.append(request.sample_row)
            else:
                input_ids.append(request.output_ids[-1])
                input_rows.append(-1)
            request.num_in_flight += 1
            request.num_computed = position + 1
            request.sample_row = row
            row += 1
            if drafter is not None and request.drafts is not None:
                row += drafter.add_rows(step, request, position, len(self.decoding))
        step.counts, step.samples = [1] * row, [True] * row
        step.sampling, step.num_tokens = requests[:], row
        if drafter is not None:
            drafter.end_step(step, len(self.decoding))

    def _has_page(self, request: Request, position: int) -> bool:
        """See to the page of a position, at the cost of others that come later in order."""
        while not self.kv.extend(request, position + 1):
            if self.num_leaving:
                return False  # a page comes back with the next commit
            last = self._last()
            self._preempt(last)
            if last is request:
                return False
        return True

    def _add_chunks(self, step: Step) -> None:
        """Chunks of running and of newly admitted requests, until tokens, rows or pages are out."""
        budget = self.limits.max_batch_input_tokens - step.num_tokens
        index = 0
        ended = []
        window_reserve = self._window_reserve()
        while budget and (request := self._next_prefill(index, window_reserve)) is not None:
            start = request.num_computed
            wanted = min(budget, request.num_tokens - start)
            count = min(wanted, self.kv.room(request, window_reserve))
            if count == 0:
                break  # whoever comes later must not take the pages that this one waits for
            index += 1
            budget -= count
            has_pages = self.kv.extend(request, start + count)
            assert has_pages, request
            is_last = start + count == request.num_tokens
            self._add_chunk(step, request, count, is_last)
            if is_last:
                ended.append(request)
        for request in ended:
            self.prefilling.remove(request)
            insort(self.decoding, request, key=ORDER)
            request.status = Status.DECODING

    def _add_chunk(self, step: Step, request: Request, count: int, is_last: bool) -> None:
        step.requests.append(request)
        step.starts.append(request.num_computed)
        step.counts.append(count)
        step.samples.append(is_last)
        step.num_tokens += count
        request.num_computed += count
        self._chunked.append(request)
        if is_last:
            request.num_in_flight += 1
            request.sample_row = len(step.sampling)
            step.sampling.append(request)

    def _next_prefill(self, index: int, window_reserve: int) -> Request | None:
        """Who gets a chunk next: prefilling[index], or one that waits and is now admitted there.

        None if there is neither.
        """
        running = self.prefilling[index] if index < len(self.prefilling) else None
        first = self.waiting.first
        if first is None or (running is not None and running.order < first.order):
            return running
        if not self._admit(first, window_reserve):
            return running
        self.prefilling.insert(index, self.waiting.pop())
        return first

    def _admit(self, request: Request, window_reserve: int) -> bool:
        """Give a waiting request pages; once the first in order gets none no later one is tried.

        A page for each running request must remain: each needs one within a page's tokens.
        """
        self._may_admit = (
            self._may_admit
            and self.num_running < self.limits.max_batch_size
            and self.kv.admit(request, self.num_running, window_reserve)
        )
        if self._may_admit:
            assert request.num_in_flight == 0, request
            request.status = Status.PREFILLING
            if request.num_preemptions == 0:
                request.cached_tokens = request.num_computed
        return self._may_admit

    def _window_reserve(self) -> int:
        """Sliding pages that decodes may come to hold besides those that they hold; 0, without a
        look at each of them, if nobody else can take any.
        """
        is_full = self.num_running == self.limits.max_batch_size
        if not self.prefilling and (is_full or not self.waiting):
            return 0
        held = sum(len(r.window_pages) - r.window_start for r in self.decoding)
        return max(0, len(self.decoding) * self.kv.window_span - held)

    def _last(self) -> Request:
        """The running request that is served last."""
        return max((rs[-1] for rs in (self.prefilling, self.decoding) if rs), key=ORDER)

    def _preempt(self, request: Request) -> None:
        """Take the last request's pages; it waits, ahead of whoever came later.

        A token of it that is still in flight is added to its output while it waits.
        """
        (self.decoding if request.status is Status.DECODING else self.prefilling).pop()
        self.kv.release(request)
        self.waiting.add(request)
        request.num_preemptions += 1
        self.num_preemptions += 1
        self._may_admit = False  # the pages are for those who run, and its token may be in flight
        self._forget(request)

    def _look_after_chunked(self) -> None:
        """Let others find the pages that the last step's chunks filled."""
        for request in self._chunked:
            self.kv.prefixes.register(request)
            if request.siblings and request.has_prompt:
                self.waiting.unpark(request, has_prompt=True)
        self._chunked.clear()

    def _describe(self) -> str:
        full, sliding = self.kv.full, self.kv.sliding
        return (
            f"{self.num_running} running and {len(self.waiting)} waiting requests, but none can go "
            f"on with {full.num_available} of {full.num_pages} full pages and "
            f"{sliding.num_available} of {sliding.num_pages} sliding pages available"
        )
