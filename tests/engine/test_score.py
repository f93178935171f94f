"""Scores of given texts over the small random network."""

import pytest
import torch

from haast.engine import score as score_module
from haast.engine.request import RequestError
from haast.engine.score import score

from ..model import helpers
from .small_model import CONFIG, ask, check_idle, expected, load_small, prompt_of, run


@pytest.mark.parametrize("chunk", [16, 512])
@pytest.mark.parametrize("page_size", [64, 128])
def test_score_equals_a_plain_forward(parameters, monkeypatch, chunk, page_size):
    monkeypatch.setattr(score_module, "CHUNK", chunk)
    loaded = load_small(parameters, page_size=page_size)
    text = prompt_of(300)
    got = score(loaded, text)
    assert got.shape == (300, CONFIG.vocab_size) and got.dtype == torch.float32
    plain = helpers.logits(CONFIG, parameters, text)
    torch.testing.assert_close(got, plain, rtol=1e-4, atol=1e-4)
    check_idle(loaded)
    assert torch.equal(score(loaded, text), got), "a cached prefix has no logits"


def test_steps_and_pages_may_be_smaller_than_a_chunk(parameters):
    text = prompt_of(250)
    plain = helpers.logits(CONFIG, parameters, text)
    for limits in ({"max_batch_input_tokens": 20}, {"num_window_pages": 2}):
        got = score(load_small(parameters, **limits), text)
        torch.testing.assert_close(got, plain, rtol=1e-4, atol=1e-4)


def test_generating_goes_on_after_it(parameters):
    loaded, one = load_small(parameters), ask(prompt_of(130), 4)
    score(loaded, one.prompt_ids)
    (request,) = run(loaded, [one])
    assert request.cached_tokens == 0
    assert request.output_ids == expected(parameters, one).output_ids


def test_refusals(parameters):
    loaded = load_small(parameters, num_pages=2)
    with pytest.raises(RequestError, match="^prompt of 128 tokens and 1 new ones exceed max_len"):
        score(loaded, prompt_of(128))
    with pytest.raises(RequestError, match="token id 300 is not in the vocabulary"):
        score(loaded, [300])
    with pytest.raises(RequestError, match="^the prompt has no tokens$"):
        score(loaded, [])
    assert len(score(loaded, prompt_of(127))) == 127
    ask([1], 2).submit(loaded)
    with pytest.raises(RequestError, match="^requests are running; exhaust or close their stream"):
        score(loaded, [1])


def test_pages_come_back_if_the_forward_fails(parameters, monkeypatch):
    loaded = load_small(parameters)

    def failing(*arguments):
        raise RuntimeError("device lost")

    monkeypatch.setattr(loaded.model, "forward", failing)
    with pytest.raises(RuntimeError, match="device lost"):
        score(loaded, prompt_of(200))
    check_idle(loaded)
