"""What ranks do around the persistent kernel of a lone request, in whose place a stand-in is."""

import numpy as np
import pytest
import torch

from haast import ops
from haast.engine.call import Call
from haast.engine.inputs import Layout
from haast.engine.load import make_runner
from haast.model.gpt_oss import GptOss
from haast.ops import StepRanks
from haast.parallel.share import shares_of

from ..engine.small_model import CONFIG, make_plan
from .test_forward import parameters_of
from .thread_ranks import thread_ranks


class StandIn:
    """Says what it was made of; its logits are rank + 1."""

    def __init__(self, network, ranks=None):
        self.network, self.ranks = network, ranks

    def __call__(self, inputs):
        assert inputs.input_id.shape == inputs.kv_len.shape == (1,)
        return torch.full((1, len(self.network.head)), self.ranks.rank + 1.0)


@pytest.fixture
def models(monkeypatch):
    monkeypatch.setattr(ops, "DecodeStep", StandIn)
    made = []
    for share, ranks in zip(shares_of(CONFIG, None, 2), thread_ranks(2), strict=True):
        ranks.step_ranks = StepRanks(ranks.rank, 2, *(torch.zeros(2) for _ in range(3)))
        made.append(GptOss(share.local, parameters_of(CONFIG, share), 200, ranks))
    return made


def with_kernel(model):
    """A runner whose plan names the kernel."""
    runner = make_runner(model, make_plan())
    runner._alone = model.persistent_step(runner.kv)
    return runner


def test_every_rank_has_its_share_and_the_others(models):
    for model in models:
        step = model.persistent_step(make_runner(model, make_plan()).kv)
        assert step.ranks is model.ranks.step_ranks
        assert len(step.network.layers[0].sinks) == CONFIG.num_heads // 2
        assert len(step.network.head) == CONFIG.vocab_size // 2


def test_without_peer_memory_it_is_not_made(models):
    models[0].ranks.step_ranks = None
    with pytest.raises(AssertionError, match="ranks without"):
        models[0].persistent_step(None)


def test_logits_are_the_kernels(models):
    """Whatever it gives: it puts them side by side itself, which ranks do of other steps."""
    runner, layout = with_kernel(models[1]), Layout(1, 1, 1)
    words = np.zeros(layout.num_words, np.int32)
    logits = runner._compute(Call(layout, words, None, 1, 1, 1, True, 0))
    assert logits[0, 0] == 2.0


@pytest.mark.parametrize(
    ("layout", "num_decodes", "is_replayed", "is_told"),
    [
        (Layout(1, 1, 1), 1, True, False),
        (Layout(1, 1, 1), 1, False, True),
        (Layout(16, 1, 1), 0, True, True),
        (Layout(2, 2, 2), 2, True, True),
    ],
)
def test_the_kernel_of_a_lone_request_passes_its_token_on(
    models, monkeypatch, layout, num_decodes, is_replayed, is_told
):
    """So that nobody else has to; before any other step ranks do."""
    runner, told = with_kernel(models[0]), []
    monkeypatch.setattr(models[0].ranks, "pass_on", lambda x: told.append(len(x)))
    monkeypatch.setattr(runner, "_compute", lambda call: call)
    runner.compute(Call(layout, None, None, num_decodes, 1, 1, is_replayed, 1))
    assert told == ([1] if is_told else [])
