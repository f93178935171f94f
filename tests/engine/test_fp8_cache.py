"""haast-tiny with keys and values in e4m3, on the CPU."""

import pytest
import torch

from haast import LLM, SamplingParams
from haast.coherence.suite import read_suite

GREEDY = SamplingParams(temperature=0, max_new_tokens=96)


@pytest.fixture(scope="module")
def llm():
    wishes = {"max_length": 640, "kv_cache_format": "float8_e4m3fn"}
    return LLM(devices="cpu", max_batch_size=16, **wishes)


def test_the_cache_is_as_planned(llm):
    caches = llm._loaded.runner.kv.layers
    assert {x.dtype for pair in caches for x in pair} == {torch.float8_e4m3fn}
    assert sum(x.nbytes for pair in caches for x in pair) == llm.plan.memory.kv_bytes


def test_answers_are_still_exact(llm):
    prompts, answers = zip(*read_suite(llm.plan.model_path).answers[:40], strict=True)
    results = llm.generate(list(prompts), GREEDY)
    right = sum(r.text == answer for r, answer in zip(results, answers, strict=True))
    assert right >= 0.95 * len(answers)


def test_what_it_costs_is_seen(llm):
    """Log-probabilities move, by rounding alone: further than those over a cache in bf16."""
    plain = LLM(devices="cpu", max_length=640)
    golden = read_suite(llm.plan.model_path).golden[0]
    ids = list(golden.ids)
    expected = torch.tensor(golden.log_probs, dtype=torch.float64)
    distances = []
    for one in (plain, llm):
        rows = one.score(ids)[:-1].double().log_softmax(-1)
        ours = rows.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        distances.append(float((ours - expected).abs().mean()))
    assert distances[0] < distances[1] < 0.5
