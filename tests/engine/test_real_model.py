"""The engine over the small random network in fp32: what runs beside a request changes nothing."""

from dataclasses import replace

import pytest
import torch

from haast import ops

from .small_model import (
    CONFIG,
    ask,
    check_idle,
    expected,
    load_small,
    make_plan,
    outputs,
    prompt_of,
    run,
)

SIZES = [(1, 12), (9, 8), (130, 10), (40, 1), (127, 6)]
ASKS = [ask(prompt_of(size), new) for size, new in SIZES]


@pytest.fixture(scope="module")
def alone(parameters):
    """What each of ASKS gives by itself, token by token from plain forwards."""
    return [expected(parameters, one).output_ids for one in ASKS]


def watch(loaded):
    """Steps as they are launched: (start and number of tokens) of each row."""
    steps, launch = [], loaded.runner.launch

    def watched(step):
        steps.append([*zip(step.starts, step.counts, strict=True)])
        return launch(step)

    loaded.runner.launch = watched
    return steps


def test_the_oracle_varies(alone):
    assert [len(output) for output in alone] == [new for _, new in SIZES]
    assert len(set(alone[0])) > 4 and len(set(map(tuple, alone))) == len(alone)


@pytest.mark.parametrize("page_size", [64, 128])
@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_batched_equals_one_at_a_time(parameters, alone, page_size, max_in_flight):
    loaded = load_small(parameters, page_size=page_size, max_in_flight=max_in_flight)
    steps = watch(loaded)
    assert outputs(run(loaded, ASKS)) == alone
    assert max(map(len, steps)) == 4


@pytest.mark.parametrize("tokens", [5, 16, 64, 100])
def test_chunked_equals_unchunked(parameters, alone, tokens):
    loaded = load_small(parameters, max_batch_input_tokens=tokens)
    steps = watch(loaded)
    assert outputs(run(loaded, ASKS)) == alone
    assert max(sum(count for _, count in step) for step in steps) == tokens
    assert any(any(start for start, count in step if count > 1) for step in steps)


@pytest.mark.parametrize("tokens", [16, 8192])
def test_without_in_flight_batching_no_step_is_mixed(parameters, alone, tokens):
    loaded = load_small(parameters, enable_in_flight_batching=False, max_batch_input_tokens=tokens)
    kinds, launch = [], loaded.runner.launch

    def watched(step):
        kinds.append((step.num_decodes > 0, step.num_decodes < len(step.requests)))
        return launch(step)

    loaded.runner.launch = watched
    assert outputs(run(loaded, ASKS)) == alone
    assert set(kinds) == {(True, False), (False, True)}


@pytest.mark.parametrize("max_in_flight", [1, 2])
@pytest.mark.parametrize("is_caching", [True, False])
def test_preempted_equals_undisturbed(parameters, max_in_flight, is_caching):
    asks = [ask(prompt_of(size), 60, repetition_penalty=1.2) for size in (40, 50, 60)]
    loaded = load_small(
        parameters, num_pages=5, enable_prefix_caching=is_caching, max_in_flight=max_in_flight
    )
    requests = run(loaded, asks)
    assert sum(request.num_preemptions for request in requests) > 0
    assert outputs(requests) == [expected(parameters, one).output_ids for one in asks]


def test_few_sliding_pages(parameters, alone):
    """Chunks wait for them; nobody else notices."""
    loaded = load_small(parameters, num_window_pages=3, max_batch_input_tokens=64)
    assert outputs(run(loaded, ASKS)) == alone


@pytest.mark.parametrize("page_size", [64, 128])
def test_a_prefix_is_found_by_the_next_request(parameters, page_size):
    """Whole pages of it, and never its last token: that one's logits are wanted."""
    loaded = load_small(parameters, page_size=page_size)
    prompts = [prompt_of(size) for size in (300, 2 * page_size)]
    first = run(loaded, [ask(prompt, 5) for prompt in prompts])
    assert [request.cached_tokens for request in first] == [0, 0]
    steps = watch(loaded)
    again = run(loaded, [ask(prompt, 5) for prompt in prompts])
    found = [300 // page_size * page_size, page_size]
    assert [request.cached_tokens for request in again] == found
    assert steps[0] == [(found[0], 300 - found[0]), (page_size, page_size)]
    assert outputs(again) == outputs(first)


def test_a_conversation_goes_on_from_its_own_tokens(parameters):
    loaded = load_small(parameters)
    (first,) = run(loaded, [ask(prompt_of(100), 40)])
    turn = ask([*first.prompt_ids, *first.output_ids, *prompt_of(7)], 6)
    (second,) = run(loaded, [turn])
    assert second.cached_tokens == 128
    assert second.output_ids == expected(parameters, turn).output_ids


def test_without_prefix_caching_nothing_is_found(parameters):
    loaded = load_small(parameters, enable_prefix_caching=False)
    one = ask(prompt_of(200), 4)
    first, again = (run(loaded, [one])[0] for _ in range(2))
    assert again.cached_tokens == 0 and again.output_ids == first.output_ids
    assert loaded.engine.kv.full.num_free == loaded.engine.kv.full.num_pages


@pytest.mark.parametrize("page_size", [64, 128])
@pytest.mark.parametrize("window", [1, 8, 63, 64, 65, 100, 128, 129])
def test_windows_across_page_ends(parameters, page_size, window):
    """Prompts and answers that begin, end and go on around the ends of pages and windows."""
    config = replace(CONFIG, windows=(window, None))
    sizes = [page_size - 2, page_size, page_size + 1, 2 * page_size + 5]
    asks = [ask(prompt_of(size), 5) for size in sizes]
    loaded = load_small(
        parameters, config=config, page_size=page_size, max_batch_input_tokens=page_size // 2 + 3
    )
    got = outputs(run(loaded, asks))
    assert got == [expected(parameters, one, config=config).output_ids for one in asks]


def test_a_long_answer_lets_go_of_sliding_pages(parameters):
    one = ask(prompt_of(60), 80)
    loaded = load_small(parameters, num_pages=3, num_window_pages=2)
    assert outputs(run(loaded, [one])) == [expected(parameters, one).output_ids]


def test_pages_used_before_do_not_show(parameters, alone):
    """The same requests over pages that others have left full."""
    loaded = load_small(parameters, num_pages=8, num_window_pages=8)
    run(loaded, [ask(prompt_of(150, seed), 20) for seed in range(1, 9)])
    assert outputs(run(loaded, ASKS)) == alone


def test_stop_tokens(parameters, alone):
    prompt = ASKS[2].prompt_ids
    second, fourth = alone[2][1], alone[2][3]
    assert len(set(alone[2][:5])) == 5
    asks = [
        ask(prompt, 9),
        ask(prompt, 9, ignore_eos=True),
        ask(prompt, 9, ignore_eos=True, stop_token_ids=(fourth,)),
        ask(prompt, 9, min_tokens=2),
    ]
    requests = run(load_small(parameters, stop_ids=(second,)), asks)
    assert [r.finish_reason for r in requests[:3]] == ["stop", "length", "stop"]
    assert [len(r.output_ids) for r in requests[:3]] == [2, 9, 4]
    assert outputs(requests) == [expected(parameters, a, (second,)).output_ids for a in asks]
    assert second not in requests[3].output_ids[:2] and len(requests[3].output_ids) > 2


@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_a_failing_forward_ends_its_requests(parameters, alone, monkeypatch, max_in_flight):
    loaded = load_small(parameters, max_batch_size=2, max_in_flight=max_in_flight)
    forward, calls = loaded.model.forward, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("device lost")
        return forward(*arguments)

    monkeypatch.setattr(loaded.model, "forward", failing)
    penalised = [ask(one.prompt_ids, 12, frequency_penalty=0.5) for one in ASKS[:2]]
    first, second, *rest = run(loaded, [*penalised, *ASKS[2:]])
    assert {(r.finish_reason, r.error) for r in (first, second)} == {
        ("error", "RuntimeError: device lost")
    }
    assert [len(r.output_ids) for r in (first, second)] == [2, 2]
    assert outputs(rest) == alone[2:]
    assert outputs(run(loaded, ASKS)) == alone


def test_cancelling_frees_pages(parameters, alone):
    loaded = load_small(parameters)
    asks = [ask(prompt_of(150), 50), ASKS[2], ask(prompt_of(30), 50, presence_penalty=1.0)]
    first, kept, last = (one.submit(loaded)[0] for one in asks)
    for _ in range(4):
        loaded.engine.step()
    loaded.engine.cancel([first, last])
    while loaded.engine.has_work:
        loaded.engine.step()
    check_idle(loaded)
    assert (first.finish_reason, last.finish_reason) == ("cancelled", "cancelled")
    assert kept.output_ids == alone[2]
    assert first.output_ids == expected(parameters, asks[0]).output_ids[: len(first.output_ids)]


def test_ops_run_by_the_plan_alone(parameters):
    """Without pins nothing runs: the CPU has no kernels, and references never step in."""
    loaded = load_small(parameters, ops=())
    (request,) = run(loaded, [ask([1, 2], 1)])
    assert request.error.startswith("LookupError: no kernel of rms_norm accepts this call")


def test_the_plan_is_about_the_ops_that_run(parameters, monkeypatch):
    seen, choose = [], ops.Op.choose
    monkeypatch.setattr(
        ops.Op, "choose", lambda op, *args, **kw: seen.append(op) or choose(op, *args, **kw)
    )
    run(load_small(parameters), [ask(prompt_of(3), 2, logit_bias={5: 1.0}, presence_penalty=1.0)])
    assert {op.name for op in seen} == {op.name for op in ops.MODEL_OPS} == {*make_plan().pins}
    assert set(ops.MODEL_OPS) < set(ops.OPS) and ops.grouped_matmul not in ops.MODEL_OPS


def test_the_cache_is_as_planned(parameters):
    cache = load_small(parameters, num_pages=7, num_window_pages=3, page_size=128).runner.kv
    shapes = [tuple(k.shape) for k, _ in cache.layers]
    assert shapes == [(3, 2, 128, 16), (7, 2, 128, 16)]
    assert all(torch.isnan(v).all() for _, v in cache.layers)
