"""Sampling settings end to end over the small random network, against one request at a time."""

import pytest
import torch

from haast.engine.intake import sibling_seed

from .small_model import VOCAB, Ask, ask, expected, load_small, outputs, prompt_of, run

DRAWN = {"temperature": 1.2, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "seed": 1 << 40}
SIZES = [(1, 12), (9, 8), (130, 10), (40, 1), (127, 6)]


def expected_ids(parameters, asks, stop_ids=()):
    return [expected(parameters, one, stop_ids).output_ids for one in asks]


def test_seeded_sampling_does_not_depend_on_the_batch(parameters):
    asks = [ask(prompt_of(size), new, **DRAWN) for size, new in SIZES]
    alone = expected_ids(parameters, asks)
    assert outputs(run(load_small(parameters), asks)) == alone
    assert outputs(run(load_small(parameters, max_batch_input_tokens=33), asks)) == alone
    others = [ask(prompt_of(30, 5), 20, temperature=2.0, seed=3), ask(prompt_of(70), 30)]
    assert outputs(run(load_small(parameters), [*others, asks[2]]))[-1] == alone[2]


def test_seeds_make_a_difference(parameters):
    asks = [ask([5], 12, temperature=1.0, seed=seed) for seed in (0, 1, 1 << 32, (1 << 64) - 1)]
    got = outputs(run(load_small(parameters), asks))
    assert len({tuple(output) for output in got}) == 4
    assert got == expected_ids(parameters, asks)
    assert outputs(run(load_small(parameters), asks)) == got


def test_a_request_draws_anew_at_each_position(parameters):
    """With one number for all positions nearly the same ranks would come again."""
    (request,) = run(load_small(parameters), [ask([5], 40, temperature=50.0, seed=1)])
    assert len(set(request.output_ids)) > 30


@pytest.mark.parametrize("is_caching", [True, False])
def test_greedy_siblings_are_equal(parameters, is_caching):
    one = ask(prompt_of(150), 8, n=5)
    requests = run(load_small(parameters, enable_prefix_caching=is_caching), [one])
    assert outputs(requests) == expected_ids(parameters, [one]) * 5
    assert [r.cached_tokens for r in requests] == [0, 128, 128, 128, 128]


@pytest.mark.parametrize("max_batch_size", [1, 2, 8])
def test_seeded_siblings_differ_and_come_again(parameters, max_batch_size):
    one = ask(prompt_of(70), 10, n=4, temperature=1.5, seed=7, frequency_penalty=0.5)
    got = outputs(run(load_small(parameters, max_batch_size=max_batch_size), [one]))
    assert len({tuple(output) for output in got}) == 4
    seeds = [sibling_seed(7, index) for index in range(4)]
    alone = [expected(parameters, one, seed=seed).output_ids for seed in seeds]
    assert got == alone and seeds[0] == 7


def test_without_a_seed_answers_differ(parameters):
    asks = [Ask([5], {"temperature": 2.0, "max_new_tokens": 12, "seed": None})] * 2
    first, second = outputs(run(load_small(parameters), asks))
    assert first != second


PENALTIES = {
    "repetition": {"repetition_penalty": 1.3},
    "repetition below one": {"repetition_penalty": 0.7},
    "presence": {"presence_penalty": 1.5},
    "frequency": {"frequency_penalty": 0.8},
    "rewards": {"presence_penalty": -1.0, "frequency_penalty": -0.5},
    "all": {"repetition_penalty": 1.1, "presence_penalty": 0.7, "frequency_penalty": 0.3},
    "bias": {"logit_bias": {7: 4.0, 8: -100.0, 299: 2.5}},
    "bias and penalties": {"logit_bias": {7: 5.0}, "frequency_penalty": 1.0},
}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("settings", PENALTIES.values(), ids=PENALTIES)
def test_penalties_and_biases(parameters, settings, temperature):
    """Beside plain requests, which must not notice."""
    drawn = {"temperature": temperature, "seed": 11}
    plain = [ask(prompt_of(size), 12, **drawn) for size in (20, 66)]
    changed = [one._replace(params=one.params | settings) for one in plain]
    loaded = load_small(parameters, max_batch_input_tokens=50)
    got = outputs(run(loaded, [plain[0], *changed, plain[1]]))
    expected_plain = expected_ids(parameters, plain)
    assert got[1:3] == expected_ids(parameters, changed)
    assert [got[0], got[3]] == expected_plain
    assert got[1:3] != expected_plain


def test_more_histories_than_rows_at_first(parameters):
    """The tensor grows, and what it held stays; rows are used again by others."""
    settings = [{"frequency_penalty": 0.2 * i, "repetition_penalty": 1.5} for i in range(1, 11)]
    asks = [ask(prompt_of(30 + i), 6 + i, **settings[i]) for i in range(10)]
    loaded = load_small(parameters, num_pages=40, num_window_pages=40, max_batch_size=10)
    assert outputs(run(loaded, asks)) == expected_ids(parameters, asks)
    assert len(loaded.runner._extras.history) == 16
    again = [ask(prompt_of(40 + i), 5, presence_penalty=1.0) for i in range(4)]
    assert outputs(run(loaded, again)) == expected_ids(parameters, again)
    assert len(loaded.runner._extras.history) == 16


def test_min_tokens_hold_off_every_end(parameters):
    """The model's own stop tokens and those of the request; other answers in the batch may end."""
    prompt = prompt_of(30)
    (free,) = expected_ids(parameters, [ask(prompt, 12)])
    stop_ids, own = (free[1],), (free[2],)
    asks = [
        ask(prompt, 12, stop_token_ids=own),
        ask(prompt, 12, stop_token_ids=own, min_tokens=6),
        ask(prompt, 12, stop_token_ids=own, min_tokens=6, ignore_eos=True),
        ask(prompt, 12, min_tokens=12),
    ]
    requests = run(load_small(parameters, stop_ids=stop_ids), asks)
    got = outputs(requests)
    assert got == expected_ids(parameters, asks, stop_ids)
    assert got[0] == free[:2] and requests[0].finish_reason == "stop"
    assert not {*stop_ids, *own} & {*got[1][:6]} and own[0] not in got[2][:6]
    assert stop_ids[0] in got[2] and requests[3].finish_reason == "length"


def test_min_tokens_count_from_the_prompt_after_a_preemption(parameters):
    stop = expected_ids(parameters, [ask(prompt_of(50), 40)])[0][20]
    asks = [ask(prompt_of(size), 60, min_tokens=40) for size in (40, 60, 50)]
    loaded = load_small(parameters, num_pages=5, stop_ids=(stop,))
    requests = run(loaded, asks)
    assert requests[2].num_preemptions > 0
    assert outputs(requests) == expected_ids(parameters, asks, (stop,))


@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_logprobs_are_of_raw_logits(parameters, max_in_flight):
    asks = [
        ask(prompt_of(20), 6, logprobs=5),
        ask(prompt_of(66), 6),
        ask(prompt_of(9), 9, logprobs=0, temperature=1.5, seed=2),
        ask(prompt_of(30), 7, logprobs=20, logit_bias={4: 9.0}, repetition_penalty=1.4),
    ]
    loaded = load_small(parameters, max_in_flight=max_in_flight, max_batch_input_tokens=40)
    requests = run(loaded, asks)
    assert outputs(requests) == expected_ids(parameters, asks)
    assert requests[1].logprobs == []
    for one, request in zip(asks, requests, strict=True):
        count = one.params.get("logprobs")
        rows = expected(parameters, one).log_probs
        for row, token_id, given in zip(rows, request.output_ids, request.logprobs, strict=False):
            assert given.logprob == pytest.approx(float(row[token_id]), abs=1e-4)
            assert len(given.top) == count
            ids = [top_id for top_id, _ in given.top]
            values = torch.tensor([value for _, value in given.top])
            torch.testing.assert_close(values, row[ids], atol=1e-4, rtol=0)
            torch.testing.assert_close(values, row.topk(count).values, atol=1e-4, rtol=0)
        assert len(request.logprobs) == (0 if count is None else len(request.output_ids))


def test_everything_at_once(parameters):
    """Many settings, few pages, small chunks: each as if it were alone."""
    asks = [
        ask(prompt_of(60), 70, repetition_penalty=1.2, temperature=0.9, seed=1, logprobs=2),
        ask(prompt_of(100), 40, **DRAWN),
        ask(prompt_of(3), 90, presence_penalty=0.4, min_tokens=80, stop_token_ids=(5, 9)),
        ask(prompt_of(64), 64, logit_bias=dict.fromkeys(range(0, VOCAB, 7), -3.0)),
        ask(prompt_of(10), 30, frequency_penalty=1.0, temperature=1.0, seed=9),
    ]
    loaded = load_small(
        parameters, num_pages=6, num_window_pages=5, max_batch_size=5, max_batch_input_tokens=37
    )
    requests = run(loaded, asks)
    assert any(request.num_preemptions for request in requests)
    assert outputs(requests) == expected_ids(parameters, asks)
