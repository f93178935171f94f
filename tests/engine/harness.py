"""An engine over the oracle, and what must hold after each of its steps."""

from collections import Counter
from dataclasses import replace
from random import Random

from haast.config import SpeculativeConfig
from haast.engine.drafts import Costs, Drafter
from haast.engine.engine import Engine
from haast.engine.limits import Limits
from haast.engine.request import SamplingParams, Status

from .oracle_grammar import OracleGrammars
from .oracle_runner import (
    PAGE_SIZE,
    VOCAB,
    WINDOW,
    OracleRunner,
    expected_output,
    logprobs_of,
    make_kv,
)

PLENTY = 64
FREE = Costs(row=1e-9, idle=0.0, other=0.0, beside=0.0, allowance=1.0, most=100.0)
"""Guesses whenever there is something to guess"""
NEVER_AWAITED = replace(FREE, idle=1.5, other=1.0, beside=1.0, allowance=10.0)
"""The same, two at least, and others have their next step before they are verified"""
OF_MASKS = ("the grammar ", "no token is left ")
"""How errors begin that end a constrained request and nothing else"""


class Harness:
    """Runs requests, keeps what each was told, and checks pages after every step."""

    def __init__(
        self,
        num_pages=PLENTY,
        num_window_pages=PLENTY,
        *,
        seed=0,
        window=WINDOW,
        is_prefix_caching=True,
        max_in_flight=2,
        stop_ids=(),
        lookup=None,
        max_drafts=6,
        costs=FREE,
        **limits,
    ):
        """lookup: (tokens guessed at a time, shortest, longest n-gram); None = no guesses"""
        limits = Limits(**({"max_length": 200, "max_batch_size": 4} | limits))
        self.runner = OracleRunner(Random(seed), window)
        self.kv = make_kv(self.runner, num_pages, num_window_pages, is_prefix_caching)
        self.grammars = OracleGrammars(VOCAB)
        drafter = None
        if lookup is not None:
            drafter = Drafter(SpeculativeConfig("ngram", *lookup), max_drafts, PAGE_SIZE, costs)
        self.engine = Engine(
            self.runner,
            self.kv,
            limits,
            VOCAB,
            frozenset(stop_ids),
            max_in_flight,
            self.grammars,
            drafter,
        )
        self.scheduler = self.engine.scheduler
        self.requests = []
        self.tokens = {}
        self.last = {}
        """request -> its last Output"""
        self.has_row = set()
        """requests that ended with a row in a launched step"""

    def submit(self, prompt_ids, num_tokens=None, *, priority=0, salt=None, **params):
        params = SamplingParams(**({"seed": 0, "max_new_tokens": num_tokens} | params))
        requests = self.engine.submit(prompt_ids, params, priority=priority, salt=salt)
        self.requests += requests
        self.tokens |= {request: [] for request in requests}
        return requests if params.n > 1 else requests[0]

    def cancel(self, request):
        is_waiting = request.status in (Status.WAITING, Status.PARKED)
        self.engine.cancel([request])
        if not is_waiting:
            self.has_row.add(request)

    def step(self):
        outputs = self.engine.step()
        self.take(outputs)
        self.check_pages()
        return outputs

    def take(self, outputs):
        for output in outputs:
            request = output.request
            assert request not in self.last, "told after its end"
            if output.token_id is not None:
                self.tokens[request].append(output.token_id)
                count = request.params.logprobs
                wanted = None if count is None else logprobs_of(output.token_id, count)
                assert output.logprobs == wanted
            if output.finish_reason is not None:
                assert request.status is Status.ENDED
                assert request.finish_reason == output.finish_reason
                self.last[request] = output

    def run(self, max_steps=5000):
        """To the end of all requests."""
        for _ in range(max_steps):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work
        self.check_idle()
        return self

    def check_pages(self):
        """Each pool counts exactly the users that hold its pages."""
        for pool, name in ((self.kv.full, "pages"), (self.kv.sliding, "window_pages")):
            pool.check()
            users = Counter(p for r in self.requests for p in getattr(r, name) if p is not None)
            assert users == {p: n for p, n in enumerate(pool._num_users) if n}, name
        waiting = [r for r in self.requests if r.status is Status.WAITING]
        assert not any(r.num_computed or r.pages for r in waiting)
        launched = [step for step, _ in self.engine._launched]
        assert len(launched) < self.engine.max_in_flight
        assert self.scheduler.num_leaving == sum(len(step.leaving) for step in launched)
        for step in launched:
            for row, request in enumerate(step.requests):
                if request.status is Status.ENDED and self.tokens[request]:
                    assert request.pages or request not in self.has_row, "freed in flight"
                is_first = step.requests.index(request) == row < step.num_decodes
                if is_first and request.status is Status.DECODING:
                    start = max(0, step.starts[row] - self.kv.window + 1) // PAGE_SIZE
                    assert request.window_start == start, "window let go too late or early"

    def check_idle(self):
        for pool in (self.kv.full, self.kv.sliding):
            assert pool.num_free + pool.num_cached == pool.num_pages and pool.num_held == 0
        assert set(self.last) == set(self.requests)
        alone = [r for r in self.requests if r.error and r not in self.runner.failed]
        assert all(r.error.startswith(OF_MASKS) for r in alone)
        assert self.engine._num_constrained == 0
        assert self.runner.known == {} and not self.runner.unwaited

    def check_outputs(self):
        """Every request got, token for token, what it gets alone."""
        for request in self.requests:
            tokens, reason = expected_output(request, self.kv.window)
            got = self.tokens[request]
            assert got == request.output_ids
            if request.params.logprobs is not None:
                count = request.params.logprobs
                assert request.logprobs == [logprobs_of(token, count) for token in got]
            if request.finish_reason == "cancelled" or request in self.runner.failed:
                assert got == tokens[: len(got)], request
            else:
                assert (got, request.finish_reason) == (tokens, reason), request
            assert request.cached_tokens == self.runner.first_start.get(request, 0)
        return self
