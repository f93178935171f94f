"""A Runner whose next token is a hash of the whole prefix, read back through the step's own pages.

A slot holds a fingerprint of everything before its position: in the full pool of the whole prefix,
in the sliding pool of the window. So any page that is mixed up, stale, used twice, not computed
again or shared wrongly changes the tokens or is found poisoned. Steps run late, at random between
launch and wait, and in order, as on a device.
"""

from collections import defaultdict, deque
from random import Random
from typing import NamedTuple

from haast.engine.kv_pages import KVPages
from haast.engine.pages import PagePool
from haast.engine.step import IN_FLIGHT, StepResult, TokenLogprobs

from .oracle_grammar import OracleMatcher

PAGE_SIZE = 4
WINDOW = 6
VOCAB = 60
RHYTHM = 3
"""Rest of the seeds by 4 whose text repeats itself, most of the time"""
MASK_SIZE = 8
"""Bytes of a mask"""
POISON = None


class OracleFault(BaseException):
    """Not an Exception: the engine must not take it for a step that failed."""


def demand(holds, *what):
    if not holds:
        raise OracleFault(*what)


def sample(seed, values, window_values, allowed=range(VOCAB)):
    """The allowed token that comes first from where the hash points to."""
    start = hash((seed, *values, *window_values)) % VOCAB
    if seed % 4 == RHYTHM and start % 8:
        start = 7 * (len(values) % (2 + seed // 4 % 4))
    return min(allowed, key=lambda token: (token - start) % VOCAB)


def allowed_next(request, matcher, output):
    """What a request may sample after its output; None if nothing."""
    allowed = set(range(VOCAB))
    if matcher is not None:
        allowed &= set() if matcher.why_stuck else matcher.allowed()
    if request.params.allowed_token_ids is not None:
        allowed &= set(request.params.allowed_token_ids)
    if request.constraint is not None and len(output) < request.params.min_tokens:
        allowed = allowed - request.end_ids or allowed
    return allowed


def logprobs_of(token_id, count):
    return TokenLogprobs(-token_id / 7, tuple((token_id + i, -float(i)) for i in range(count)))


def expected_output(request, window=WINDOW):
    """What a request gives alone, and why it ends."""
    text = request.params.grammar
    matcher = None if text is None else OracleMatcher(text, VOCAB)
    values, window_values, output = [], [], []

    def compute(token):
        values.append(hash((token, *values)))
        seen = window_values[max(0, len(window_values) - window + 1) :]
        window_values.append(hash((token, *seen)))

    for token in request.prompt_ids:
        compute(token)
    while True:
        allowed = allowed_next(request, matcher, output)
        if not allowed:
            return output, "error"
        token = sample(request.seed, values, window_values[-window:], allowed)
        if matcher is not None and matcher.consume(token) is not None:
            return output, "error"
        output.append(token)
        if matcher is not None and matcher.is_done:
            return output, "stop"
        if token in request.end_ids and len(output) >= request.params.min_tokens:
            return output, "stop"
        if len(output) == request.max_new_tokens:
            return output, "length"
        compute(token)


class Row(NamedTuple):
    request: object
    start: int
    count: int
    samples: bool
    token_ids: list
    input_row: int
    pages: list
    window_pages: list


class Job:
    """A launched step; `result` is None until it has run.

    masked  rows among those that sample whose masks must be filled before it may run
    drafts  (row, count) of those that guesses follow
    """

    def __init__(self, runner, rows, poison, masked=(), drafts=()):
        self.runner = runner
        self.rows = rows
        self.poison = poison
        self.result = None
        self.error = None
        self.masked = list(masked)
        self.drafts = list(drafts)
        self.buffer = bytearray(len(self.masked) * MASK_SIZE)
        self.is_complete = not self.masked

    def masks(self):
        demand(self.masked and not self.is_complete, "masks were not asked for")
        demand([*self.runner.unwaited] == [self], "masks before their tokens are known")
        return memoryview(self.buffer)

    def sample(self):
        demand(self.masked and not self.is_complete, "sampled already")
        self.is_complete = True
        if error := self.runner.sample_errors.get(self.runner.num_steps):
            self.is_complete = False
            raise error

    def allowed(self, at):
        """Token ids that a sampling row may give."""
        if at not in self.masked:
            return range(VOCAB)
        start = self.masked.index(at) * MASK_SIZE
        mask = int.from_bytes(self.buffer[start : start + MASK_SIZE], "little")
        return [token for token in range(VOCAB) if mask >> token & 1]

    def give_up(self):
        """A step that was never sampled: what it wrote may not be read."""
        demand(self.runner.jobs.pop() is self and not self.runner.jobs, "steps before it wait")
        self.runner.empty_pages(self)
        self.runner.spoil(self)
        self.runner.is_broken = False
        return self.result

    def wait(self):
        demand(self.runner.unwaited.popleft() is self, "waited out of order")
        if not self.is_complete:
            return self.give_up()
        while self.result is None:
            self.runner.run_next()
        if self.error is not None:
            self.runner.is_broken = bool(self.runner.unwaited)
            raise self.error
        for row, count in self.drafts:
            self.runner.go_on(self.rows[row].request, self.num_right(row, count))
        return self.result

    def num_right(self, row, count):
        """Guesses after a row that are what it, or the right ones before, sampled."""
        for at in range(row, row + count):
            if self.rows[at + 1].token_ids != [self.result.token_ids[at]]:
                return at - row
        return count


class OracleRunner:
    """Use `make_kv(runner, …)` for its pages: they tell it which to poison."""

    def __init__(self, random=None, window=WINDOW):
        self.random = random or Random(0)
        self.window = window
        self.slots = {}
        self.poison = []
        self.jobs = deque()
        self.unwaited = deque()
        self.known = {}
        self.first_start = {}
        self.samples = []
        self.num_computed = 0
        self.max_rows = self.max_tokens = self.max_unwaited = self.num_mixed = self.num_steps = 0
        self.num_masked = 0
        self.num_guesses = self.num_right = 0
        self.launch_errors = {}
        self.wait_errors = {}
        self.sample_errors = {}
        """number of a step, from 1 -> what it raises"""
        self.failed = set()
        """requests of steps that raised or came after one that did"""
        self.is_broken = False
        """from a step that failed until all that were launched have been waited for"""
        self.alive = True

    def is_alive(self):
        return self.alive

    def forget(self, request):
        demand(request in self.known or request in self.failed, "never seen", request)
        self.known.pop(request, None)

    def launch(self, step):
        self.num_steps += 1
        demand(all(job.is_complete for job in self.jobs), "launched before the last was sampled")
        for request, start in zip(step.requests, step.starts, strict=True):
            self.first_start.setdefault(request, start)
        if self.num_steps in self.launch_errors:
            self.failed |= set(step.requests)
            raise self.launch_errors[self.num_steps]
        rows = [self.copy_row(step, index) for index in range(len(step.requests))]
        demand(step.num_tokens == sum(step.counts) == len(step.token_ids()), "token count")
        demand([r.request for r in rows if r.samples] == step.sampling, "sampling rows")
        num_guesses = self.check_drafts(step)
        different = len({id(r) for r in step.requests})
        demand(different == len(rows) - num_guesses > 0, "a request has two rows")
        self.max_rows = max(self.max_rows, len(rows))
        self.max_tokens = max(self.max_tokens, step.num_tokens)
        self.num_mixed += 0 < step.num_decodes < len(rows)
        masked = [i for i, r in enumerate(step.sampling) if r.constraint is not None]
        demand(step.masked == masked, "masked rows")
        self.num_masked += len(masked)
        job = Job(self, rows, self.poison, masked, step.drafts)
        job.error = self.wait_errors.get(self.num_steps)
        self.poison = []
        self.jobs.append(job)
        self.unwaited.append(job)
        self.max_unwaited = max(self.max_unwaited, len(self.unwaited))
        while self.jobs and self.jobs[0].is_complete and self.random.random() < 0.5:
            self.run_next()
        return job

    def check_drafts(self, step):
        """The promises of Step about guesses; how many there are."""
        for row, count in step.drafts:
            request, stop = step.requests[row], row + count + 1
            demand(count >= 1 and stop <= step.num_decodes, "guesses are decodes", row, count)
            demand(step.requests[row:stop] == [request] * (count + 1), "guesses of another")
            demand(request.constraint is None, "guesses of a constrained request")
            start = step.starts[row]
            demand(step.starts[row:stop] == [*range(start, start + count + 1)], "their positions")
            demand(set(step.input_rows[row + 1 : stop]) == {-1}, "guesses are no samples")
            demand(start + count < request.last_position, "guesses after the last token")
        num_guesses = sum(count for _, count in step.drafts)
        self.num_guesses += num_guesses
        return num_guesses

    def go_on(self, request, num_right):
        """A request's guesses were verified: its next row begins after those that were right."""
        self.num_right += num_right
        if request in self.known:
            stop, *pages = self.known[request]
            self.known[request] = (stop + num_right, *pages)

    def copy_row(self, step, index):
        """What the runner takes from a row, with the promises of Step checked."""
        request, start, count = step.requests[index], step.starts[index], step.counts[index]
        is_decode = index < step.num_decodes
        token_ids = [step.input_ids[index]] if is_decode else step.chunk_ids(index)
        input_row = step.input_rows[index] if is_decode else -1
        demand(len(token_ids) == count >= 1, "tokens of a row", token_ids, count)
        demand((token_ids[0] == IN_FLIGHT) == (input_row >= 0), "where its token is")
        pages, window_pages = request.pages[:], request.window_pages[:]
        if any(row < index <= row + guesses for row, guesses in step.drafts):
            return Row(request, start, count, True, token_ids, -1, pages, window_pages)
        for job in self.unwaited:
            verified = {job.rows[row].request for row, _ in job.drafts}
            demand(request not in verified, "a row before its guesses are verified")
        if request in self.known:
            stop, old_pages, old_window = self.known[request]
            demand(start == stop, "a row goes on elsewhere", start, stop)
            demand(pages[: len(old_pages)] == old_pages, "pages changed")
            pairs = zip(old_window, window_pages, strict=False)
            demand(all(new in (old, None) for old, new in pairs), "window pages changed")
        else:
            demand(not is_decode and start % PAGE_SIZE == 0, "a new row is a chunk after a hit")
        self.known[request] = (start + count, pages, window_pages)
        self.num_computed += count
        samples = step.samples[index]
        return Row(request, start, count, samples, token_ids, input_row, pages, window_pages)

    def run_next(self):
        """What the device does with the oldest job."""
        job = self.jobs.popleft()
        self.empty_pages(job)
        previous, self.samples = self.samples, []
        if self.is_broken:
            job.error = RuntimeError("an earlier step failed")
        if job.error is not None:
            self.spoil(job)
            return
        rows_of = defaultdict(deque)
        for row in job.rows:
            rows_of[row.request].append(row)
        for row in self.random.sample(job.rows, len(job.rows)):
            self.write(rows_of[row.request].popleft(), previous)
        token_ids, logprobs = [], []
        for row in job.rows:
            if row.samples:
                token_ids.append(self.sample(row, job.allowed(len(token_ids))))
                count = row.request.params.logprobs
                logprobs.append(None if count is None else logprobs_of(token_ids[-1], count))
        self.samples = token_ids
        job.result = StepResult(token_ids, logprobs if any(logprobs) else None)
        for row, count in job.drafts:
            right = job.num_right(row, count)
            self.lose(job.rows[row + 1 + right : row + 1 + count])

    def empty_pages(self, job):
        for label, page in job.poison:
            self.slots[label, page] = [POISON] * PAGE_SIZE

    def spoil(self, job):
        """A failed step: what it should have written is lost, and what it should have sampled."""
        self.lose(job.rows)
        later = [row for other in self.unwaited for row in other.rows]
        self.failed |= {row.request for row in [*job.rows, *later]}
        self.is_broken, job.result = True, StepResult([])

    def lose(self, rows):
        """What they wrote may not be read."""
        for row in rows:
            for position in range(row.start, row.start + row.count):
                index, offset = divmod(position, PAGE_SIZE)
                self.slots["full", row.pages[index]][offset] = POISON
                self.slots["sliding", row.window_pages[index]][offset] = POISON

    def write(self, row, previous):
        ids = row.token_ids if row.input_row < 0 else [previous[row.input_row]]
        demand(IN_FLIGHT not in ids, "a token is in flight that the previous step did not sample")
        slots = self.slots
        for position, token in enumerate(ids, row.start):
            index, offset = divmod(position, PAGE_SIZE)
            value = hash((token, *self.values(row, position)))
            window_value = hash((token, *self.window_values(row, position, self.window - 1)))
            slots["full", row.pages[index]][offset] = value
            slots["sliding", row.window_pages[index]][offset] = window_value

    def sample(self, row, allowed):
        stop = row.start + row.count
        seed, window_values = row.request.seed, self.window_values(row, stop, self.window)
        return sample(seed, self.values(row, stop), window_values, allowed)

    def values(self, row, stop):
        """The full pool's slots at positions [0, stop)."""
        slots, values = self.slots, []
        for page in row.pages[: -(-stop // PAGE_SIZE)]:
            values += slots["full", page]
        del values[stop:]
        demand(POISON not in values, "a slot of the full pool was not computed", row, stop)
        return values

    def window_values(self, row, stop, count):
        """The sliding pool's slots at the last `count` positions before `stop`."""
        start = max(0, stop - count)
        slots, values = self.slots, []
        for page in row.window_pages[start // PAGE_SIZE : -(-stop // PAGE_SIZE)]:
            demand(page is not None, "a page of the window is gone", row, stop)
            values += slots["sliding", page]
        first = start // PAGE_SIZE * PAGE_SIZE
        values = values[start - first : stop - first]
        demand(POISON not in values, "a slot of the sliding pool was not computed", row, stop)
        return values


class WatchedPool(PagePool):
    """Has the runner poison pages whose content must not be read again, before the next step."""

    def __init__(self, num_pages, label, poison):
        super().__init__(num_pages, label)
        self.on_poison = poison

    def allocate(self):
        page = super().allocate()
        self.on_poison(self.label, page)
        return page

    def free(self, page):
        super().free(page)
        if self._free and self._free[-1] == page:
            self.on_poison(self.label, page)


def make_kv(runner, num_pages, num_window_pages, is_prefix_caching=True):
    def poison(label, page):
        runner.poison.append((label, page))

    full = WatchedPool(num_pages, "full", poison)
    sliding = WatchedPool(num_window_pages, "sliding", poison)
    return KVPages(full, sliding, PAGE_SIZE, runner.window, is_prefix_caching)
