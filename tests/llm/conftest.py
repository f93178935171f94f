"""haast-tiny behind the Python API, and that nothing is left behind."""

import pytest
import torch

from haast import LLM, SamplingParams

EAGLE = "What is a bald eagle?"
ANSWER = (
    "A bald eagle is a large eagle of North America that has a white head and dark wings and body."
)


@pytest.fixture(scope="package")
def shared() -> LLM:
    torch.set_num_threads(1)
    return LLM(max_batch_size=4, max_length=640)


@pytest.fixture
def llm(shared):
    """The shared model; nobody may hold a page after each test."""
    yield shared
    assert not shared.engine.has_work
    assert num_held(shared) == 0


def num_held(llm: LLM) -> int:
    """Pages in use, of both pools."""
    kv, memory = llm.engine.kv, llm.plan.memory
    assert (kv.full.num_pages, kv.sliding.num_pages) == (memory.num_pages, memory.num_window_pages)
    kv.check()
    return kv.full.num_held + kv.sliding.num_held


def greedy(**changes) -> SamplingParams:
    return SamplingParams(**{"temperature": 0, "max_new_tokens": 80} | changes)


@pytest.fixture(scope="package")
def opened(shared) -> list[int]:
    """The question, thought about already, up to `<|channel|>final<|message|>`."""
    (result,) = shared.generate(EAGLE, greedy(), reasoning_effort="low")
    last = len(result.token_ids) - result.token_ids[::-1].index(shared.tokenizer.special.message)
    return [*result.prompt_token_ids, *result.token_ids[:last]]
