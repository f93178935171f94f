"""Masks end to end over the small random network, against one request at a time."""

import pytest
import torch

from haast import ops
from haast.engine.mask_buffer import MaskBuffer

from .oracle_grammar import END
from .small_model import VOCAB, ask, check_idle, expected, load_small, outputs, prompt_of, run

CPU = torch.device("cpu")
STOPS = (END,)
ASKS = [
    ask(prompt_of(60), 12, grammar="3"),
    ask(prompt_of(66), 9, temperature=1.3, seed=5),
    ask(prompt_of(130), 12, grammar="end 6", temperature=1.5, seed=2),
    ask(prompt_of(9), 10, grammar="done 7", ignore_eos=True, logprobs=3),
    ask(prompt_of(61), 8, allowed_token_ids=[3, 50, 51, 200], temperature=2.0, seed=1),
    ask(prompt_of(58), 9, grammar="8", frequency_penalty=1.5, logit_bias={4: 6.0}),
    ask(prompt_of(62), 9, grammar="5", min_tokens=6, allowed_token_ids=[*range(250), END]),
]


def expected_ids(parameters, asks):
    return [expected(parameters, one, STOPS).output_ids for one in asks]


@pytest.mark.parametrize(
    "wishes",
    [
        {"max_batch_size": 8},
        {"max_batch_size": 8, "max_in_flight": 1},
        {"max_batch_size": 3, "max_batch_input_tokens": 19},
        {"max_batch_size": 8, "enable_in_flight_batching": False},
    ],
    ids=["together", "one in flight", "chunked", "apart"],
)
def test_each_gives_what_it_gives_alone(parameters, wishes):
    loaded = load_small(parameters, stop_ids=STOPS, **wishes)
    requests = run(loaded, ASKS)
    assert outputs(requests) == expected_ids(parameters, ASKS)
    assert [r.finish_reason for r in requests[2:4]] == ["stop", "stop"]
    assert loaded.engine._num_constrained == 0
    free = [one._replace(params={**one.params, "grammar": None}) for one in ASKS[:1]]
    assert outputs(run(loaded, free)) != outputs(requests)[:1]


def test_preemption(parameters):
    sizes = (40, 60, 50)
    asks = [ask(prompt_of(size), 60, grammar=str(size), temperature=1.0) for size in sizes]
    requests = run(load_small(parameters, num_pages=5), asks)
    assert sum(r.num_preemptions for r in requests) > 0
    assert outputs(requests) == [expected(parameters, one).output_ids for one in asks]


def test_siblings_have_matchers_of_their_own(parameters):
    one = ask(prompt_of(70), 12, n=4, grammar="end 4", temperature=1.8, seed=9)
    requests = run(load_small(parameters, stop_ids=STOPS), [one])
    alone = [expected(parameters, one, STOPS, seed=r.seed).output_ids for r in requests]
    assert outputs(requests) == alone and len({tuple(ids) for ids in alone}) == 4
    assert all(len(ids) == 5 and ids[-1] == END for ids in alone)


def test_an_end_that_the_grammar_forces_comes_before_min_tokens(parameters):
    one = ask(prompt_of(30), 6, grammar="end 2", min_tokens=6, logit_bias={4: 1.0})
    (request,) = run(load_small(parameters, stop_ids=STOPS), [one])
    assert request.output_ids[2:] == [END] * 4 and END not in request.output_ids[:2]


def test_logprobs_are_of_raw_logits(parameters):
    one = ask(prompt_of(30), 6, grammar="3", logprobs=2)
    (request,) = run(load_small(parameters), [one, ask(prompt_of(9), 3)])[:1]
    raw = expected(parameters, one).log_probs
    for token_id, given, row in zip(request.output_ids, request.logprobs, raw, strict=True):
        assert given.logprob == pytest.approx(float(row[token_id]), abs=1e-4)
        assert [i for i, _ in given.top] == row.topk(2).indices.tolist()


@pytest.mark.parametrize("at", ["masks", "sample"])
def test_a_step_whose_masks_fail_ends_its_requests(parameters, monkeypatch, at):
    loaded = load_small(parameters, stop_ids=STOPS)
    runner = loaded.runner

    def fail(*_):
        raise RuntimeError("no memory to pin")

    monkeypatch.setattr(runner, at, fail)
    bound, free = (one.submit(loaded)[0] for one in ASKS[:2])
    while loaded.engine.has_work:
        loaded.engine.step()
    assert bound.error == "RuntimeError: no memory to pin" and free.finish_reason == "error"
    monkeypatch.undo()
    assert outputs(run(loaded, ASKS[:2])) == expected_ids(parameters, ASKS[:2])
    check_idle(loaded)


def test_the_buffer_brings_each_row_its_mask():
    buffer = MaskBuffer(6, 70, CPU)
    data = buffer.masks(2)
    assert len(data) == 2 * 12 and data.format == "B"
    data[:12] = (1 << 69 | 1).to_bytes(12, "little")
    data[12:] = (1 << 33 | 1 << 5).to_bytes(12, "little")
    logits = torch.zeros(4, 70)
    ops.adjust_logits.reference(logits, None, buffer.send([1, 3], 4), None)
    kept = [row.isfinite().nonzero().flatten().tolist() for row in logits]
    assert kept == [[*range(70)], [0, 69], [*range(70)], [5, 33]]
    again = buffer.masks(1)
    again[:] = (1 << 2).to_bytes(12, "little")
    masks = buffer.send([0], 2)
    assert masks.mask_row.tolist() == [0, -1] and masks.allowed.shape == (1, 3)
    assert masks.allowed.data_ptr() % 16 == 0 and VOCAB % 32
