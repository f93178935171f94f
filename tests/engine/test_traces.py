"""Random traces of arrivals, steps and cancellations over the oracle."""

from hypothesis import given, settings
from hypothesis import strategies as st

from haast.engine import generator as generator_module

from .oracle import expected_output, make_request, oracle_generator, pages_add_up, prompt_of

ARRIVAL = st.tuples(st.just("add"), st.integers(1, 200), st.integers(1, 60))
CANCEL = st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0))
STEPS = st.tuples(st.just("step"), st.integers(1, 6), st.just(0))
TRACE = st.lists(st.one_of(ARRIVAL, ARRIVAL, CANCEL, STEPS), min_size=3, max_size=14)


class Watched:
    """A generator, and what it told about each request."""

    def __init__(self, num_pages, max_batch_size):
        self.generator = oracle_generator(num_pages, max_batch_size=max_batch_size)
        self.requests, self.cancelled, self.told = [], set(), {}

    def add(self, size, num_tokens):
        request = make_request(prompt_of(size, seed=len(self.requests)), num_tokens)
        self.requests.append(request)
        self.told[request] = []
        self.generator.add(request)

    def cancel(self, index, _):
        alive = [r for r in self.requests if r.finish_reason is None]
        for request in alive[index : index + 1]:
            self.generator.cancel([request])
            self.cancelled.add(request)
            assert request not in self.generator.running and not request.pages

    def step(self, count, _):
        for _ in range(count):
            if self.generator.has_work:
                for progress in self.generator.step():
                    assert progress.request not in self.cancelled
                    assert len(self.told[progress.request]) < progress.request.max_new_tokens
                    if progress.token_id is not None:
                        self.told[progress.request].append(progress.token_id)
            assert pages_add_up(self.generator)


@settings(max_examples=40, deadline=None)
@given(TRACE, st.integers(3, 6), st.integers(1, 4), st.sampled_from([16, 100, 512]))
def test_every_request_gets_what_it_would_get_alone(trace, num_pages, rows, chunk):
    watched = Watched(num_pages, rows)
    chunk, generator_module.PREFILL_CHUNK = generator_module.PREFILL_CHUNK, chunk
    try:
        for verb, *numbers in trace:
            getattr(watched, verb)(*numbers)
            assert pages_add_up(watched.generator)
        watched.step(3000, 0)
    finally:
        generator_module.PREFILL_CHUNK = chunk
    assert not watched.generator.has_work
    assert len(watched.generator.free_pages) == num_pages
    for request in watched.requests:
        expected = expected_output(request.prompt_ids, request.max_new_tokens)
        assert watched.told[request] == request.output_ids
        if request in watched.cancelled:
            assert request.output_ids == expected[: len(request.output_ids)]
            assert request.finish_reason is None
        else:
            assert request.output_ids == expected and request.finish_reason == "length"
