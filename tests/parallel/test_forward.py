"""A network over several ranks computes what it computes alone: in fp32, so that nothing hides."""

from dataclasses import replace
from queue import Queue

import pytest
import torch

from haast import ops
from haast.config import ModelConfig
from haast.engine.load import assemble, make_runner
from haast.model.gpt_oss import GptOss
from haast.model.kv_cache import KVCache
from haast.model.parameters import Parameters
from haast.model.random_weights import random_parameters
from haast.parallel.share import shares_of

from ..engine.small_model import CONFIG, ask, expected, make_plan, outputs, prompt_of, run
from ..model import helpers
from .thread_ranks import thread_ranks, together

CPU = torch.device("cpu")
WIDE = replace(CONFIG, num_heads=12, num_kv_heads=4, intermediate_size=160)
"""5 groups over 2 or 4 ranks: parts of different size"""


def parameters_of(config: ModelConfig, share=None) -> Parameters:
    return random_parameters(config, "mxfp4", CPU, share=share).to(torch.float32)


@pytest.mark.parametrize("config, size", [(CONFIG, 2), (WIDE, 2), (WIDE, 4)])
def test_logits(config, size):
    ids = prompt_of(40)
    shares, ranks = shares_of(config, None, size), thread_ranks(size)

    def work(rank):
        share = shares[rank]
        model = GptOss(share.local, parameters_of(config, share), len(ids), ranks[rank])
        kv = KVCache.empty(share.local, 1, 1, torch.float32, CPU)
        with torch.inference_mode(), ops.pin({op.name: ops.REFERENCE for op in ops.OPS}):
            return model.logits(model.forward(torch.tensor(ids), helpers.prompt_meta(len(ids)), kv))

    results = together(size, work)
    alone = helpers.logits(config, parameters_of(config), ids)
    assert alone.std() > 0.5
    assert (results[0] - alone).abs().max() < 1e-4
    assert all(torch.equal(result, results[0]) for result in results)


class Pair:
    """An engine over two ranks; the second one is a thread."""

    def __init__(self, **plan) -> None:
        self.calls: Queue = Queue()
        made, shares, ranks = make_plan(**plan), shares_of(CONFIG, None, 2), thread_ranks(2)
        models = [
            GptOss(share.local, parameters_of(CONFIG, share), made.max_length, ranks[share.rank])
            for share in shares
        ]
        self.loaded = assemble(models[0], made, frozenset())
        self.loaded.runner.team = self
        self.follower = make_runner(models[1], made)

    def working_on(self, call):
        self.calls.put(call)
        return torch.inference_mode()

    def is_alive(self):
        return True

    def run(self, asks):
        def work(rank):
            if rank == 0:
                try:
                    return outputs(run(self.loaded, asks))
                finally:
                    self.calls.put(None)
            while (call := self.calls.get(timeout=20)) is not None:
                self.follower.compute(call)

        return together(2, work)[0]


@pytest.fixture(scope="module")
def parameters():
    return parameters_of(CONFIG)


ASKS = [
    ask(prompt_of(30), 12),
    ask(prompt_of(9), 10, temperature=1.0, seed=1),
    ask(prompt_of(70), 8, temperature=0.8, top_k=20, top_p=0.9, seed=2),
    ask(prompt_of(5), 10, temperature=1.5, min_p=0.05, presence_penalty=1.0, seed=3),
    ask(prompt_of(12), 8, temperature=1.0, seed=4, allowed_token_ids=(1, 5, 9, 13)),
    ask(prompt_of(3), 6, repetition_penalty=1.5, frequency_penalty=0.5, logit_bias={7: 3.0}),
]
"""Every way to sample; some rows are masked, some wait, some read their prompts in chunks"""


@pytest.mark.parametrize("plan", [{}, {"max_batch_input_tokens": 16}, {"num_pages": 4}])
def test_every_way_to_sample_gives_the_tokens_of_one_process(parameters, plan):
    assert Pair(**plan).run(ASKS) == [expected(parameters, one).output_ids for one in ASKS]
