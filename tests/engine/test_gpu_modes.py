"""haast-tiny through the engine on a GPU: whatever the mode, the same answers."""

from dataclasses import replace

import pytest

from haast import LLM, SamplingParams
from haast.bench.machine import why_no_hopper
from haast.coherence.suite import read_suite
from haast.engine import plan as plan_module

pytestmark = pytest.mark.skipif(why_no_hopper() is not None, reason=str(why_no_hopper()))
MODES = {
    "one at a time": {"max_batch_size": 1},
    "many": {"max_batch_size": 64},
    "chunked": {"max_batch_size": 16, "max_batch_input_tokens": 24},
    "apart": {"max_batch_size": 64, "enable_in_flight_batching": False},
    "deterministic": {"max_batch_size": 64, "deterministic": True},
    "shortlist": {"max_batch_size": 16, "shortlist_head": True},
    "fp8": {"max_batch_size": 64, "kv_cache_format": "float8_e4m3fn"},
    "fp8 chunked": {
        "max_batch_size": 16,
        "max_batch_input_tokens": 24,
        "kv_cache_format": "float8_e4m3fn",
    },
}
MAX_WRONG = {"fp8": 0.05, "fp8 chunked": 0.05}
"""Share of answers, 0.02 where nothing is said"""
GREEDY = SamplingParams(temperature=0, max_new_tokens=96)
LONG = SamplingParams(temperature=0, max_new_tokens=100, ignore_eos=True, logprobs=3)
SAMPLED = SamplingParams(seed=5, max_new_tokens=40, ignore_eos=True, logprobs=0, top_p=0.9)


def load(**wishes):
    return LLM(devices="gpu", **wishes)


@pytest.fixture(scope="module")
def suite():
    return read_suite(load().plan.model_path)


@pytest.mark.parametrize("mode", MODES)
def test_exact_answers(suite, mode):
    prompts, answers = zip(*suite.answers, strict=True)
    results = load(**MODES[mode]).generate(list(prompts), GREEDY)
    wrong = [(r.text, a) for r, a in zip(results, answers, strict=True) if r.text != a]
    print(f"{mode}: {1 - len(wrong) / len(answers):.3f} exact")
    assert len(wrong) <= MAX_WRONG.get(mode, 0.02) * len(answers), wrong[:3]
    assert sum(sum(r.anomalies.values()) for r in results) == 0


def test_without_graphs(suite):
    prompts, answers = zip(*suite.answers[:60], strict=True)
    llm = load(max_batch_size=16)
    assert llm.plan.has_graphs
    replayed = llm.generate(list(prompts), GREEDY)
    llm._loaded.runner._graphs = None
    eager = llm.generate(list(prompts), GREEDY)
    assert [r.text for r in replayed] == [r.text for r in eager] == list(answers)


@pytest.mark.parametrize("batch_size", [1, 8, 12])
def test_the_shadow_head_changes_no_token(suite, batch_size):
    """Prompts of one length, so that both engines run the same batches."""
    wishes = {"max_batch_size": batch_size, "enable_prefix_caching": False}
    plain, short = load(**wishes), load(**wishes, shortlist_head=True)
    prompts = [list(range(5 + i, 45 + i)) for i in range(batch_size)]
    drawn = {"max_new_tokens": 200, "ignore_eos": True, "seed": 7}
    for how in ({"temperature": 0.0}, {"top_k": 20}, {"top_k": 50, "top_p": 0.9}, {"min_p": 0.1}):
        params = SamplingParams(**drawn, **how)
        expected = [r.token_ids for r in plain.generate(prompts, params)]
        assert [r.token_ids for r in short.generate(prompts, params)] == expected, how
    assert short._loaded.runner.num_short_steps > 4 * 190
    assert plain._loaded.runner.num_short_steps == 0


def given(results):
    """All of an answer's numbers, the tokens of all first."""
    return [r.token_ids for r in results], [r.logprobs for r in results]


def assert_same(results, expected):
    """To the bit; says how many answers differ in what, and where the first one does."""
    for kind, ours, theirs in zip(("tokens", "logprobs"), given(results), expected, strict=True):
        wrong = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
        at = [
            next(j for j, (a, b) in enumerate(zip(ours[i], theirs[i], strict=True)) if a != b)
            for i in wrong
        ]
        assert not wrong, (kind, len(wrong), list(zip(wrong, at, strict=True))[:8])


def conversations(suite, count):
    """Prompts longer than a page, the first half of which begins alike."""
    turns = []
    for question, answer in suite.answers[:6]:
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    ask = [{"role": "user", "content": question} for question, _ in suite.answers[6 : 6 + count]]
    return [[*turns[: 12 if i < count // 2 else 8], last] for i, last in enumerate(ask)]


@pytest.fixture(scope="module")
def alone(suite):
    """What each conversation gives with nothing beside it and nothing cached."""
    llm = load(max_batch_size=1, deterministic=True, enable_prefix_caching=False)
    chats = conversations(suite, 24)
    return given([*llm.generate(chats, LONG), *llm.generate(chats, SAMPLED)])


@pytest.mark.parametrize(
    "wishes",
    [
        {"max_batch_size": 64},
        {"max_batch_size": 7, "max_batch_input_tokens": 19},
        {"max_batch_size": 64, "enable_in_flight_batching": False},
    ],
    ids=["together", "chunked", "apart"],
)
def test_deterministic_bits(suite, alone, wishes):
    llm = load(deterministic=True, **wishes)
    chats = conversations(suite, 24)
    first = [*llm.generate(chats, LONG), *llm.generate(chats, SAMPLED)]
    assert_same(first, alone)
    again = [*llm.generate(chats, LONG), *llm.generate(chats, SAMPLED)]
    assert_same(again, alone)
    assert min(r.cached_tokens for r in again) >= 128


def test_deterministic_bits_after_preemption(suite, alone, monkeypatch):
    plan_kv = plan_module.plan_kv
    monkeypatch.setattr(
        plan_module,
        "plan_kv",
        lambda *args: replace(plan_kv(*args), num_pages=24, num_window_pages=40),
    )
    llm = load(max_batch_size=16, max_length=1024, deterministic=True)
    chats = conversations(suite, 24)
    results = [*llm.generate(chats, LONG), *llm.generate(chats, SAMPLED)]
    assert llm.engine.scheduler.num_preemptions > 0
    assert_same(results, alone)
