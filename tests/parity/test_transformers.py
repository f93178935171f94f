"""Our logits and tokens against transformers' GptOssForCausalLM with eager attention."""

import pytest
import torch
from torch import Tensor

from haast.engine.request import SamplingParams
from haast.engine.score import score

from .conftest import Pair, their_logits

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.parametrize("pair", ["haast-tiny", "random"], indirect=True),
]
FP32_LIMIT = 1e-5
"""Measured: 6.2e-7 overall and 2.3e-6 at the worst position"""
NUM_GREEDY = 128


def lengths(pair: Pair) -> list[int]:
    return [1, pair.window - 1, pair.window, pair.window + 1, 300]


def error(got: Tensor, expected: Tensor) -> float:
    """Size of the difference relative to what was expected."""
    return float((got - expected).norm() / expected.norm())


def worst_row(got: Tensor, expected: Tensor) -> tuple[float, int]:
    """Largest relative error of one position, and which."""
    errors = (got - expected).norm(dim=-1) / expected.norm(dim=-1)
    return float(errors.max()), int(errors.argmax())


def median_row(got: Tensor, expected: Tensor) -> float:
    return float(((got - expected).norm(dim=-1) / expected.norm(dim=-1)).median())


@pytest.mark.parametrize("encoding", ["mxfp4", "bfloat16"])
def test_fp32_logits_are_equal_but_for_rounding(pair, encoding):
    loaded = pair.haast(torch.float32, encoding)
    for length in lengths(pair):
        token_ids = pair.prompt(length)
        expected = their_logits(pair.fp32, token_ids)
        got = score(loaded, token_ids)
        assert got.shape == expected.shape
        row = worst_row(got, expected)
        print(f"fp32 {encoding} {length}: {error(got, expected):.2e}, worst row {row}")
        assert error(got, expected) < FP32_LIMIT
        assert row[0] < FP32_LIMIT, row


def test_bf16_logits_err_no_more_than_theirs(pair):
    """Over several prompts: a near tie in the router may go either way in both."""
    loaded = pair.haast(torch.bfloat16, "mxfp4")
    theirs = pair.transformers(torch.bfloat16)
    for length in lengths(pair):
        rows = []
        for seed in range(1 + 600 // (length + 75)):
            token_ids = pair.prompt(length, seed)
            exact = their_logits(pair.fp32, token_ids)
            rows.append((score(loaded, token_ids), their_logits(theirs, token_ids), exact))
        ours, them, exact = (torch.cat(logits) for logits in zip(*rows, strict=True))
        print(f"bf16 {length}: ours {error(ours, exact):.2e}, theirs {error(them, exact):.2e}")
        assert 0 < error(ours, exact) <= 2 * error(them, exact), length
        assert median_row(ours, exact) <= 2 * median_row(them, exact), length


def test_greedy_tokens_are_the_same(pair):
    """Two requests in one batch, long enough to cross a page and to leave every window."""
    prompts = [pair.prompt(length, seed=1) for length in (5, 110)]
    engine = pair.haast(torch.float32, "mxfp4", max_batch_size=2).engine
    params = SamplingParams(temperature=0, max_new_tokens=NUM_GREEDY)
    requests = [engine.submit(token_ids, params)[0] for token_ids in prompts]
    while engine.has_work:
        engine.step()
    for token_ids, done in zip(prompts, requests, strict=True):
        assert done.output_ids == their_greedy(pair.fp32, token_ids)


@torch.inference_mode()
def their_greedy(model, token_ids: list[int]) -> list[int]:
    out = []
    pending, cache = torch.tensor([token_ids]), None
    for _ in range(NUM_GREEDY):
        step = model(pending, past_key_values=cache, use_cache=True)
        cache = step.past_key_values
        pending = step.logits[:, -1:].argmax(-1)
        out.append(int(pending))
    return out
