"""haast-tiny over two processes on the CPU, and what becomes of it when one of them goes."""

import os
import signal
from pathlib import Path

import pytest
import torch

from haast import LLM, HaastError, SamplingParams
from haast.config import EngineConfig, SpeculativeConfig
from haast.engine.engine import EngineDeadError
from haast.engine.team import Team
from haast.model.checkpoint import open_checkpoint
from haast.model.locate import demo_folder
from haast.model.weights import load_parameters
from haast.parallel import followers as module

from ..engine.harness import FREE
from ..model import helpers
from ..serve.conftest import children
from .test_followers import until

WISHES = {"max_length": 640, "max_batch_size": 4}
QUESTIONS = ["What is a bald eagle?", "Define democracy.", "What is a harbor?"]
CPU = torch.device("cpu")


def greedy(**changes):
    return SamplingParams(**{"temperature": 0, "max_new_tokens": 40} | changes)


@pytest.fixture(scope="module")
def alone():
    return LLM(devices="cpu", **WISHES)


@pytest.fixture(scope="module")
def two():
    """Closed at the end, with no child left of it."""
    before = children()
    llm = LLM(devices="2xcpu", **WISHES)
    yield llm
    llm._loaded.runner.team.close()
    assert children() == before


@pytest.fixture(scope="module")
def answers(alone):
    return alone.generate(QUESTIONS, greedy(), reasoning_effort="low")


def ids_of(results):
    return [result.token_ids for result in results]


def test_greedy_tokens(two, answers):
    assert ids_of(two.generate(QUESTIONS, greedy(), reasoning_effort="low")) == ids_of(answers)


def test_guesses(answers):
    """Rows of wrong and of right ones are computed by all ranks."""
    llm = LLM(devices="2xcpu", speculative_config=SpeculativeConfig("ngram", 3, 1, 3), **WISHES)
    try:
        drafter = llm.engine.drafter
        drafter.costs = FREE
        asked = llm.generate(QUESTIONS, greedy(), reasoning_effort="low")
        assert ids_of(asked) == ids_of(answers)
        wrong = drafter.counts.tokens - drafter.counts.accepted
        (biased,) = llm.generate(QUESTIONS[:1], greedy(logit_bias={9: 100.0}))
        assert biased.token_ids == (9,) * 40
        assert wrong > 3 and drafter.counts.accepted > 15
    finally:
        llm._loaded.runner.team.close()


def test_logits_are_as_near_to_fp32_as_those_of_one_process(alone, two, answers):
    ids = [*answers[0].prompt_token_ids, *answers[0].token_ids]
    checkpoint = open_checkpoint(demo_folder())
    parameters = load_parameters(checkpoint, "mxfp4", CPU).to(torch.float32)
    exact = helpers.logits(checkpoint.config, parameters, ids)
    of_one, of_two = ((llm.score(ids) - exact).abs() for llm in (alone, two))
    assert 0 < of_one.mean() < 0.5
    assert of_two.mean() < 1.25 * of_one.mean()
    assert of_two.max() < 2 * of_one.max()


def test_ways_to_sample_that_leave_no_doubt(two, answers):
    """Seeds, masks, biases and log-probabilities reach the sampler as they do alone."""
    drawn = greedy(temperature=1.0, top_p=0.3, seed=7)
    assert ids_of(two.generate(QUESTIONS, drawn, reasoning_effort="low")) == ids_of(answers)
    (confined,) = two.generate(QUESTIONS[:1], greedy(allowed_token_ids=(3, 4), max_new_tokens=5))
    assert {*confined.token_ids} <= {3, 4}
    (biased,) = two.generate(QUESTIONS[:1], greedy(logit_bias={9: 100.0}, max_new_tokens=3))
    assert biased.token_ids == (9, 9, 9)
    (told,) = two.generate(QUESTIONS[:1], greedy(logprobs=2), reasoning_effort="low")
    assert [of_token.top[0][0] for of_token in told.logprobs] == [*told.token_ids]


def test_what_the_plan_says_of_ranks(two):
    first, second = two.plan.ranks
    assert first == second and two.plan.device == "cpu, cpu"
    assert (first.num_heads, first.num_kv_heads, first.intermediate_size) == (8, 1, 96)
    assert (first.num_tokens, first.device) == (2048, "cpu")
    held = two._loaded.model.parameters.nbytes
    assert two.plan.memory.weight_bytes == first.weight_bytes == held
    layers = two._loaded.runner.kv.layers
    assert two.plan.memory.kv_bytes == sum(k.nbytes + v.nbytes for k, v in layers)


@pytest.mark.parametrize(
    "devices, why",
    [
        ("3xcpu", "devices '3xcpu': 2 key-value heads cannot be split over 3"),
        ("0xcpu", "devices '0xcpu' is not one of cpu, gpu, gpu:N, gpu:N,M,... and Nxcpu"),
    ],
)
def test_devices_that_will_not_do(devices, why):
    before = {*children()}
    with pytest.raises(HaastError) as error:
        LLM(devices=devices, **WISHES)
    assert str(error.value) == why and {*children()} == before


@pytest.mark.parametrize("name", ["deterministic", "shortlist_head"])
def test_what_is_for_one_device(name):
    with pytest.raises(HaastError, match=f"^{name} is for one device; devices '2xcpu'"):
        LLM(devices="2xcpu", **{name: True})


def test_a_rank_that_cannot_load_is_told(monkeypatch):
    tell_each, elsewhere = module.Followers.tell_each, EngineConfig(Path("gone"), devices="2xcpu")

    def misled(followers, make):
        tell_each(followers, lambda rank: make(rank)._replace(config=elsewhere))

    monkeypatch.setattr(module.Followers, "tell_each", misled)
    before = {*children()}
    with pytest.raises(HaastError) as error:
        LLM(devices="2xcpu", **WISHES)
    assert str(error.value) == "rank 1 (cpu): gone: no such file or folder"
    until(lambda: {*children()} == before)


def test_ranks_leave_if_something_else_cannot_be_loaded(tmp_path):
    template = tmp_path / "bad.jinja"
    template.write_text("{% if %}")
    before = children()
    with pytest.raises(HaastError, match="bad.jinja, line 1: ") as raised:
        LLM(devices="2xcpu", chat_template=template, **WISHES)
    assert children() == before
    del raised  # until here its traceback holds what was being loaded


@pytest.mark.parametrize(
    "number, reason",
    [
        (signal.SIGKILL, "rank 1 (cpu) was killed by SIGKILL"),
        (signal.SIGSTOP, "rank 1 (cpu) hangs: nothing came from it for 5 s"),
    ],
)
def test_a_rank_that_goes_ends_the_engine(monkeypatch, number, reason):
    before = {*children()}
    llm = LLM(devices="2xcpu", **WISHES)
    (pid,) = {*children()} - before
    stream = llm.stream(QUESTIONS[0], greedy(max_new_tokens=400, ignore_eos=True))
    next(stream)
    monkeypatch.setattr(module, "SILENCE_S", 5.0)
    os.kill(pid, number)
    with pytest.raises(EngineDeadError) as error:
        for _ in stream:
            pass
    assert str(error.value) == f"the engine is dead: RankError: {reason}"
    with pytest.raises(EngineDeadError, match="rank 1"):
        llm.generate(QUESTIONS[:1])
    until(lambda: {*children()} == before)


def test_graphs_go_before_the_ranks_leave():
    """NCCL never ends while graphs hold its collectives."""
    order = []

    class Graphs(dict):
        def clear(self):
            order.append("graphs")

    class Leaves:
        failure = waiting = when_failed = None

        def __init__(self, name):
            self.name = name

        def close(self):
            order.append(self.name)

    team = Team(Leaves("followers"), None)
    team._joined.append(Leaves("ranks"))
    team.hold(Graphs())
    team.close()
    assert order == ["graphs", "followers", "ranks"]
