"""Two models one after the other in the same processes, as on GPUs, but on the CPU."""

import gc
import os
import signal
import weakref

import pytest
import torch

from haast import LLM
from haast.config import ConfigError
from haast.engine import follower, loading
from haast.engine import team as module
from haast.engine.engine import EngineDeadError
from haast.parallel.crew import Crew

from ..serve.conftest import children
from .test_followers import until
from .test_llm import QUESTIONS, WISHES, greedy, ids_of

OTHER = {**WISHES, "max_batch_size": 1, "load_format": "dummy"}
"""Of another model, which says other things"""


@pytest.fixture
def crew(monkeypatch):
    """That ranks on the CPU belong to; gone at the end."""
    before = {*children()}
    crew = Crew()
    monkeypatch.setattr(module, "CREW", crew)
    monkeypatch.setattr(module, "OUTLIVING", ("cpu",))
    yield crew
    gc.collect()
    crew._followers.close()
    assert {*children()} <= before


def said(llm):
    return ids_of(llm.generate(QUESTIONS, greedy(), reasoning_effort="low"))


def fresh(**wishes):
    """What ranks say that have had no model before."""
    llm = LLM(devices="2xcpu", **wishes)
    try:
        return said(llm)
    finally:
        llm._loaded.runner.team.close()


@pytest.fixture(scope="module")
def expected():
    return fresh(**WISHES), fresh(**OTHER)


def test_the_second_model_has_the_ranks_of_the_first(crew, expected):
    before = {*children()}
    llm = LLM(devices="2xcpu", **WISHES)
    (pid,) = {*children()} - before
    assert said(llm) == expected[0]
    with pytest.raises(ConfigError, match="^another model of this process is on several GPUs"):
        LLM(devices="2xcpu", **OTHER)
    del llm
    gc.collect()
    assert crew.is_resting
    other = LLM(devices="2xcpu", **OTHER)
    assert said(other) == expected[1] and expected[0] != expected[1]
    assert {*children()} - before == {pid}
    other._loaded.runner.team.close()  # as where it is garbage, but that one can ask it
    last = LLM(devices="2xcpu", **WISHES)
    with pytest.raises(EngineDeadError, match="the ranks of this model were closed"):
        said(other)
    assert said(last) == expected[0] and {*children()} - before == {pid}


def test_a_model_that_fails_leaves_the_ranks_to_the_next(crew, expected, monkeypatch):
    """After they have met for it, and before, when nobody has heard that they are ready."""
    before = {*children()}
    with monkeypatch.context() as broken:
        broken.setattr(loading, "assemble", fails)
        with pytest.raises(ConfigError, match="ran out of memory"):
            LLM(devices="2xcpu", **OTHER)
    (pid,) = {*children()} - before
    with monkeypatch.context() as broken:
        broken.setattr(module.Team, "join", fails)
        with pytest.raises(ConfigError, match="ran out of memory"):
            LLM(devices="2xcpu", **OTHER)
    llm = LLM(devices="2xcpu", **WISHES)
    assert said(llm) == expected[0] and {*children()} - before == {pid}


def fails(*_, **__):
    raise torch.OutOfMemoryError("out of memory")


def test_a_rank_that_dies_at_rest(crew):
    before = {*children()}
    llm = LLM(devices="2xcpu", **WISHES)
    (pid,) = {*children()} - before
    del llm
    gc.collect()
    os.kill(pid, signal.SIGKILL)
    until(lambda: crew._followers.failure)
    with pytest.raises(ConfigError, match="ranks .* are gone .rank 1 .cpu. was killed by SIGKILL"):
        LLM(devices="2xcpu", **WISHES)


def test_a_follower_forgets_what_only_garbage_collection_finds(monkeypatch):
    told = iter(["a call", module.Rest()])

    class Runner:
        def __init__(self):
            self.itself = self
            made.append(weakref.ref(self))

        def compute(self, call):
            computed.append(call)

    class Leader:
        def receive(self):
            return next(told)

    made, computed = [], []
    monkeypatch.setattr(follower, "_join", lambda _leader: Runner())
    follower._work(Leader())
    follower._forget()
    assert made[0]() is None and computed == ["a call"]
