"""Scheduling over the oracle: batching, chunks, pages, ends, refusals."""

import pytest

from haast.engine import generator as generator_module
from haast.engine.generator import Progress, RequestError
from haast.model.kv_cache import PAGE_SIZE

from .oracle import (
    expected_output,
    make_request,
    oracle_generator,
    pages_add_up,
    prompt_of,
    run,
)


def test_ragged_requests_together():
    sizes = [(1, 5), (127, 3), (128, 2), (129, 140), (40, 1), (256, 4)]
    requests = [make_request(prompt_of(n, n), new) for n, new in sizes]
    outputs = run(oracle_generator(12), requests)
    for (n, new), output in zip(sizes, outputs, strict=True):
        assert output == expected_output(prompt_of(n, n), new), n


@pytest.mark.parametrize("chunk", [1, 7, 128, 299, 300, 301])
def test_chunked_prefill(monkeypatch, chunk):
    monkeypatch.setattr(generator_module, "PREFILL_CHUNK", chunk)
    generator = oracle_generator(8)
    requests = [make_request(prompt_of(300), 4), make_request(prompt_of(9, 1), 4)]
    outputs = run(generator, requests)
    assert outputs == [expected_output(r.prompt_ids, 4) for r in requests]
    assert max(map(max, generator.model.steps)) == min(chunk, 300)


def test_a_prompt_chunk_gives_no_token(monkeypatch):
    monkeypatch.setattr(generator_module, "PREFILL_CHUNK", 4)
    generator = oracle_generator(1)
    request = make_request(prompt_of(10), 2)
    generator.add(request)
    first, second = expected_output(prompt_of(10), 2)
    tokens = [None, None, first, second]
    assert [generator.step() for _ in tokens] == [[Progress(request, t)] for t in tokens]
    assert generator.model.steps == [[4], [4], [2], [1]]
    assert not generator.has_work


def test_each_token_is_computed_once():
    generator = oracle_generator(4)
    run(generator, [make_request(prompt_of(30), 5), make_request(prompt_of(20, 1), 3)])
    assert generator.model.steps == [[30], [20], [1, 1], [1, 1], [1], [1]]


def test_requests_that_end_in_the_same_step_all_leave():
    """Regression: the running list was changed while it was walked."""
    generator = oracle_generator(4)
    requests = [make_request(prompt_of(5, seed), 3) for seed in range(4)]
    for request in requests:
        generator.add(request)
    ended = []
    while generator.has_work:
        ended.append([p.request for p in generator.step() if p.request.finish_reason])
    assert ended == [[]] * 5 + [requests]
    assert generator.running == [] and sorted(generator.free_pages) == [0, 1, 2, 3]
    for seed, request in enumerate(requests):
        assert request.output_ids == expected_output(prompt_of(5, seed), 3)
        assert request.finish_reason == "length" and request.pages == []


def test_all_of_a_batch_end_at_once():
    """Four that reach their stop token in one step, told apart from those that go on."""
    generator = oracle_generator(6, max_batch_size=6)
    prompts = [prompt_of(4, seed) for seed in range(6)]
    seconds = [expected_output(prompt, 2)[1] for prompt in prompts]
    requests = [
        make_request(prompt, 5, stop=[second] if seed < 4 else [])
        for seed, (prompt, second) in enumerate(zip(prompts, seconds, strict=True))
    ]
    for request in requests:
        generator.add(request)
    for _ in range(7):
        progress = generator.step()
    assert [p.request for p in progress] == requests
    assert [r.finish_reason for r in requests] == ["stop"] * 4 + [None] * 2
    assert generator.running == requests[4:] and len(generator.free_pages) == 4


def test_more_requests_than_pages_wait_and_complete():
    generator = oracle_generator(3, max_batch_size=8)
    sizes = [200, 100, 300, 128, 50, 250, 1]
    requests = [make_request(prompt_of(size, size), 20) for size in sizes]
    for request in requests:
        generator.add(request)
    generator.step()
    assert generator.running == requests[:2] and list(generator.waiting) == requests[2:]
    run(generator, [])
    for size, request in zip(sizes, requests, strict=True):
        assert request.output_ids == expected_output(prompt_of(size, size), 20), size


def test_more_requests_than_rows_wait():
    generator = oracle_generator(8, max_batch_size=2)
    requests = [make_request(prompt_of(5, seed), 3) for seed in range(5)]
    for request in requests:
        generator.add(request)
    while generator.has_work:
        generator.step()
        assert len(generator.running) <= 2
    assert all(len(request.output_ids) == 3 for request in requests)
    assert max(len(step) for step in generator.model.steps) == 2


def test_a_cancelled_request_frees_its_pages_at_once():
    generator = oracle_generator(4)
    running, other, waiting = (make_request(prompt_of(150, s), 50) for s in range(3))
    for request in (running, other, waiting):
        generator.add(request)
    generator.step()
    assert generator.free_pages == [] and list(generator.waiting) == [waiting]
    generator.cancel([running])
    assert len(generator.free_pages) == 2 and running.pages == []
    assert generator.running == [other] and pages_add_up(generator)
    run(generator, [])
    assert running.output_ids == expected_output(running.prompt_ids, 1)
    assert running.finish_reason is None
    for request in (other, waiting):
        assert request.output_ids == expected_output(request.prompt_ids, 50)


def test_cancelling_what_waits_or_has_ended():
    generator = oracle_generator(1)
    first, second = make_request(prompt_of(5), 1), make_request(prompt_of(6), 1)
    generator.add(first)
    generator.add(second)
    generator.cancel([second])
    assert generator.step() == [Progress(first, expected_output(prompt_of(5), 1)[0])]
    assert not generator.has_work and second.output_ids == []
    generator.cancel([first, second])
    assert generator.free_pages == [0]


def test_cancelling_amid_a_prompt(monkeypatch):
    monkeypatch.setattr(generator_module, "PREFILL_CHUNK", 16)
    generator = oracle_generator(4)
    request, other = make_request(prompt_of(100), 5), make_request(prompt_of(20, 1), 5)
    generator.add(request)
    generator.step()
    generator.cancel([request])
    assert len(generator.free_pages) == 4
    assert run(generator, [other]) == [expected_output(prompt_of(20, 1), 5)]


def test_stop_tokens_end_a_request():
    prompt = prompt_of(12)
    tokens = expected_output(prompt, 6)
    assert len(set(tokens)) == 6
    stopped = make_request(prompt, 6, stop=[tokens[2], tokens[4]])
    ignoring = make_request(prompt, 6, stop=[tokens[2]], ignore_eos=True)
    outputs = run(oracle_generator(4), [stopped, ignoring])
    assert outputs == [tokens[:3], tokens]
    assert (stopped.finish_reason, ignoring.finish_reason) == ("stop", "length")


REFUSED = {
    "empty": ([], 5, "the prompt has no tokens"),
    "beyond the vocabulary": ([1, 300], 5, "token id 300 is not in the vocabulary of 300"),
    "negative": ([1, -1], 5, "token id -1 is not in the vocabulary of 300"),
    "too long": (
        [1] * 100,
        101,
        "prompt of 100 tokens and 101 new ones exceed max_length 200",
    ),
}


@pytest.mark.parametrize("prompt, num_tokens, message", REFUSED.values(), ids=REFUSED)
def test_refusals(prompt, num_tokens, message):
    generator = oracle_generator(2, max_length=200)
    with pytest.raises(RequestError) as error:
        generator.add(make_request(prompt, num_tokens))
    assert str(error.value) == message
    assert not generator.has_work and pages_add_up(generator)


def test_a_request_of_exactly_max_length_fits():
    generator = oracle_generator(2, max_length=2 * PAGE_SIZE)
    request = make_request(prompt_of(PAGE_SIZE), PAGE_SIZE)
    assert run(generator, [request]) == [expected_output(prompt_of(PAGE_SIZE), PAGE_SIZE)]
