"""Steps that find their tokens by a shadow of the head give those that the whole head gives."""

from types import SimpleNamespace

import pytest
import torch

from haast import ops
from haast.config import OpChoice
from haast.engine import runner as runner_module
from haast.engine.graphs import StepGraphs
from haast.engine.inputs import Layout
from haast.engine.sampling_params import SamplingParams
from haast.engine.shortlist import fits_shortlist, is_bounded
from haast.ops.shortlist.shadow import shadow_bytes

from ..model.helpers import CPU
from .planning import WIDE, planned
from .small_model import VOCAB, ask, expected, load_small, outputs, prompt_of, run

CHOICES = tuple(OpChoice(op.name, ops.REFERENCE, "test") for op in (*ops.MODEL_OPS, ops.shortlist))
BOUNDED = (
    {},
    {"temperature": 0.0, "top_p": 0.5},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 0.7, "top_k": 64, "top_p": 0.9, "min_p": 0.3},
    {"temperature": 2.0, "min_p": 0.1},
)
UNBOUNDED = (
    {"temperature": 1.0},
    {"temperature": 1.0, "top_k": 65},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 1.0, "top_p": 0.9, "min_p": 0.3},
    {"temperature": 1.0, "min_p": 0.001},
    {"temperature": 2.0, "min_p": 0.05},
)
WANTING_MORE = (
    {"logprobs": 0},
    {"presence_penalty": 1.5},
    {"logit_bias": {7: 90.0}},
    {"min_tokens": 3},
    {"allowed_token_ids": [3, 9, 11]},
)


@pytest.fixture
def short(parameters):
    return lambda **plan: load_small(parameters, ops=CHOICES, has_shadow_head=True, **plan)


@pytest.mark.parametrize("params", [*BOUNDED, *UNBOUNDED], ids=str)
def test_what_is_bounded(params):
    assert is_bounded(SamplingParams(**({"temperature": 0.0} | params))) == (params in BOUNDED)


def test_which_steps_fit():
    greedy, plain = (SimpleNamespace(params=SamplingParams(temperature=t)) for t in (0.0, 1.0))

    def fits(*sampling, masked=()):
        return fits_shortlist(SimpleNamespace(sampling=sampling, masked=masked))

    assert fits(greedy) and fits(*[greedy] * 16)
    assert not fits() and not fits(*[greedy] * 17)
    assert not fits(greedy, plain) and not fits(greedy, masked=[0])


@pytest.mark.parametrize("params", BOUNDED, ids=str)
def test_tokens_of_short_steps(short, parameters, params):
    """Every step that samples is one: of the prompt, too, but not those before its last chunk."""
    one = ask(prompt_of(40), 12, seed=3, **params)
    loaded = short(max_batch_input_tokens=30)
    assert outputs(run(loaded, [one])) == [expected(parameters, one).output_ids]
    assert loaded.runner.num_short_steps == 12


@pytest.mark.parametrize("params", [*UNBOUNDED, *WANTING_MORE], ids=str)
def test_tokens_of_whole_steps(short, parameters, params):
    one = ask(prompt_of(20), 6, seed=3, **params)
    loaded = short()
    assert outputs(run(loaded, [one])) == [expected(parameters, one).output_ids]
    assert loaded.runner.num_short_steps == 0


def test_one_row_that_wants_more_makes_its_steps_whole(short, parameters):
    asks = [ask(prompt_of(9), 20), ask(prompt_of(11), 5, logprobs=1), ask(prompt_of(5), 20)]
    loaded = short()
    assert outputs(run(loaded, asks)) == [expected(parameters, one).output_ids for one in asks]
    assert 10 < loaded.runner.num_short_steps < 20


def test_without_a_shadow_no_step_is_short(parameters):
    loaded = load_small(parameters)
    run(loaded, [ask(prompt_of(9), 4)])
    assert loaded.model.shadow is None and loaded.runner.num_short_steps == 0


class Unreplayed(StepGraphs):
    """Computes each time what a graph would: its layout, padding and all."""

    def run(self, layout, num_decodes):
        self.captured[layout] = None
        return self._function(layout, num_decodes)


def test_graphs_hold_either_head(short, parameters, monkeypatch):
    """Nine decodes run as sixteen; of the whole head a graph of that size holds no logits."""
    monkeypatch.setattr(runner_module, "StepGraphs", Unreplayed)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "Stream", lambda: "side")
    asks = [ask(prompt_of(5 + i), 8) for i in range(9)]
    asks[4] = ask(prompt_of(7), 3, logprobs=0)
    loaded = short(has_graphs=True, max_batch_size=20, num_pages=40, num_window_pages=40)
    seen = []
    find = loaded.model.short_logits
    loaded.model.short_logits = lambda x, sampling: seen.append(len(x)) or find(x, sampling)
    assert outputs(run(loaded, asks)) == [expected(parameters, one).output_ids for one in asks]
    graphs = {*loaded.runner._graphs.captured}
    assert {Layout(16, 16, 16), Layout(8, 8, 8, is_short=True)} <= graphs
    assert 0 < len(seen) == loaded.runner.num_short_steps and 8 in seen
    assert loaded.model.shadow.codes.shape == (VOCAB, WIDE.hidden_size)


def test_the_plan_counts_it_and_names_its_op(kernels, gpu):
    plain, plan = planned(model=WIDE), planned(model=WIDE, shortlist_head=True)
    took = plan.memory.weight_bytes - plain.memory.weight_bytes
    assert took == shadow_bytes(WIDE.vocab_size, WIDE.hidden_size) > 0
    assert plan.has_shadow_head and not plain.has_shadow_head
    (choice,) = [c for c in plan.ops if c.op == "shortlist"]
    assert choice.because == "the first that accepts the call: cuda_scan"
    assert "shortlist" not in {c.op for c in plain.ops}
    assert planned(device=CPU, shortlist_head=True).pins["shortlist"] == "reference"
