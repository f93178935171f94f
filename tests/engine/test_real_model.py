"""The generator over the small random network in fp32: what shares a batch changes nothing."""

import pytest
import torch

from haast import ops
from haast.engine import generator as generator_module
from haast.engine import score as score_module
from haast.engine.generator import RequestError
from haast.engine.score import score
from haast.model.gpt_oss import GptOss
from haast.model.kv_cache import KVCache
from haast.model.random_weights import random_parameters

from ..model.helpers import prompt_meta
from .oracle import CONFIG, CPU, make_request, pages_add_up, poison, prompt_of, real_generator, run

SIZES = [(1, 12), (9, 8), (130, 10), (40, 1), (127, 6)]
SAMPLED = {"temperature": 1.2, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "seed": 1 << 40}


@pytest.fixture(scope="module")
def parameters():
    return random_parameters(CONFIG, "mxfp4", CPU).to(torch.float32)


def forward(parameters, token_ids):
    """Logits [T, V] of one text in one forward, on pages in order."""
    size = len(token_ids)
    num_pages = -(-size // 128)
    model = GptOss(CONFIG, parameters, size)
    with ops.pin({op.name: ops.REFERENCE for op in ops.OPS}):
        kv = KVCache.empty(CONFIG, num_pages, num_pages, model.dtype, CPU)
        return model.logits(model.forward(torch.tensor(token_ids), prompt_meta(size), kv))


def requests(**params):
    return [make_request(prompt_of(size, size), new, **params) for size, new in SIZES]


def test_batched_greedy_equals_one_at_a_time(parameters):
    together = run(real_generator(parameters), requests())
    alone = [run(real_generator(parameters), [request])[0] for request in requests()]
    assert together == alone
    assert [len(output) for output in together] == [new for _, new in SIZES]
    assert len(set(together[0])) > 4


def test_greedy_takes_the_largest_logit_of_a_plain_forward(parameters):
    prompt = prompt_of(130)
    output = run(real_generator(parameters), [make_request(prompt, 6)])[0]
    expected = forward(parameters, prompt + output[:-1])[len(prompt) - 1 :].argmax(-1)
    assert output == expected.tolist()


@pytest.mark.parametrize("chunk", [16, 128])
def test_chunked_prefill_equals_unchunked(parameters, monkeypatch, chunk):
    whole = run(real_generator(parameters), requests())
    monkeypatch.setattr(generator_module, "PREFILL_CHUNK", chunk)
    assert run(real_generator(parameters), requests()) == whole


def test_pages_used_before_do_not_show(parameters):
    """The same requests over pages that others have left full."""
    generator = real_generator(parameters)
    first = run(generator, requests())
    generator.free_pages.reverse()
    assert run(generator, requests()) == first


def test_seeded_sampling_does_not_depend_on_the_batch(parameters):
    alone = [run(real_generator(parameters), [r])[0] for r in requests(**SAMPLED)]
    together = run(real_generator(parameters), requests(**SAMPLED))
    assert together == alone
    mixed = requests(**SAMPLED)[2]
    others = [make_request(prompt_of(30, 5), 20, temperature=2.0, seed=3), *requests()[:2]]
    assert run(real_generator(parameters), [*others, mixed])[-1] == alone[2]


def test_seeds_make_a_difference(parameters):
    outputs = [
        run(real_generator(parameters), [make_request([5], 12, temperature=1.0, seed=seed)])[0]
        for seed in (0, 1, 1 << 32)
    ]
    assert len({tuple(output) for output in outputs}) == 3


def test_a_sampled_request_draws_anew_at_each_position(parameters):
    """Greedy filters off: with one number for all positions the same ranks would come again."""
    output = run(real_generator(parameters), [make_request([5], 40, temperature=50.0, seed=1)])[0]
    assert len(set(output)) > 30


@pytest.mark.parametrize("chunk", [16, 512])
def test_score_equals_a_plain_forward(parameters, monkeypatch, chunk):
    monkeypatch.setattr(score_module, "PREFILL_CHUNK", chunk)
    generator = real_generator(parameters)
    poison(generator.kv)
    text = prompt_of(150)
    got = score(generator, text)
    assert got.shape == (150, CONFIG.vocab_size) and got.dtype == torch.float32
    torch.testing.assert_close(got, forward(parameters, text), rtol=1e-4, atol=1e-4)
    assert pages_add_up(generator) and len(generator.free_pages) == 8


def test_score_refuses_what_cannot_run(parameters):
    generator = real_generator(parameters, num_pages=1)
    with pytest.raises(RequestError, match="^prompt of 129 tokens and 0 new ones exceed max_len"):
        score(generator, prompt_of(129))
    with pytest.raises(RequestError, match="token id 300 is not in the vocabulary"):
        score(generator, [300])
    with pytest.raises(RequestError, match="^the prompt has no tokens$"):
        score(generator, [])
    assert len(score(generator, prompt_of(128))) == 128


def test_score_gives_its_pages_back_if_the_forward_fails(parameters, monkeypatch):
    generator = real_generator(parameters)

    def failing(*args):
        raise RuntimeError("device lost")

    monkeypatch.setattr(generator.model, "forward", failing)
    with pytest.raises(RuntimeError, match="device lost"):
        score(generator, prompt_of(200))
    assert len(generator.free_pages) == 8


def test_ops_run_by_the_plan_alone(parameters):
    """Without pins nothing runs: there are no kernels, and references never step in."""
    generator = real_generator(parameters)
    object.__setattr__(generator.plan, "ops", ())
    generator.add(make_request([1, 2], 1))
    with pytest.raises(LookupError, match="no kernel of rms_norm accepts this call"):
        generator.step()


def test_the_plan_is_about_the_ops_that_run(parameters, monkeypatch):
    seen = []
    choose = ops.Op.choose
    monkeypatch.setattr(
        ops.Op, "choose", lambda op, *args, **kw: seen.append(op) or choose(op, *args, **kw)
    )
    run(real_generator(parameters), [make_request(prompt_of(3), 2)])
    assert {op.name for op in seen} == {op.name for op in ops.MODEL_OPS}
    assert set(ops.MODEL_OPS) < set(ops.OPS) and ops.grouped_matmul not in ops.MODEL_OPS
