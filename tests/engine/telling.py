"""A Runner that tells given texts, and one that says how long that would have taken."""

from bisect import bisect_left
from random import Random

from haast.config import SpeculativeConfig
from haast.engine.drafts import Costs, Drafter
from haast.engine.engine import Engine
from haast.engine.limits import Limits
from haast.engine.request import SamplingParams

from . import oracle_runner
from .oracle_runner import OracleRunner, make_kv

STEP_MS = ((1, 2.01), (2, 2.50), (4, 3.19), (8, 3.94), (32, 5.81), (64, 6.31), (128, 8.54))
"""Rows -> a step of gpt-oss-20b on an H100"""
HOST_MS = 0.33
"""To schedule, launch and commit one"""


def step_ms(num_rows):
    """In between in proportion; of more rows, as prompts have, that of most."""
    num_rows = min(num_rows, STEP_MS[-1][0])
    at = max(1, bisect_left(STEP_MS, (num_rows, 0.0)))
    (low, low_ms), (high, high_ms) = STEP_MS[at - 1], STEP_MS[at]
    return low_ms + (high_ms - low_ms) * (num_rows - low) / (high - low)


class Teller(OracleRunner):
    """Whoever asks, gets the token of its text: texts[seed][position].

    now_ms  the host's time; steps run one after the other on a device of their own
    """

    def __init__(self, texts):
        super().__init__(Random(0))
        self.texts = texts
        self.now_ms = self.free_ms = 0.0

    def sample(self, row, allowed):
        super().sample(row, allowed)  # its pages are checked
        return self.texts[row.request.seed][row.start + row.count]

    def launch(self, step):
        self.now_ms += HOST_MS
        job = super().launch(step)
        self.free_ms = ends_ms = max(self.now_ms, self.free_ms) + step_ms(step.num_tokens)
        wait = job.wait

        def timed_wait():
            self.now_ms = max(self.now_ms, ends_ms)
            return wait()

        job.wait = timed_wait
        return job


def tell(texts, num_prompt, lookup=None, costs=None, num_pages=2000, **limits):
    """The engine and the requests, one a text, that give its tokens from num_prompt on."""
    runner = Teller(texts)
    drafter = None
    if lookup is not None:
        config = SpeculativeConfig("ngram", *lookup)
        drafter = Drafter(config, 64, oracle_runner.PAGE_SIZE, costs or Costs())
    kv = make_kv(runner, num_pages, num_pages)
    limits = {"max_length": max(map(len, texts)), "max_batch_size": len(texts)} | limits
    engine = Engine(runner, kv, Limits(**limits), 60, frozenset(), drafter=drafter)
    requests = []
    for seed, text in enumerate(texts):
        params = SamplingParams(seed=seed, max_new_tokens=len(text) - num_prompt)
        requests += engine.submit(text[:num_prompt], params)
    return engine, requests


def told_ms(texts, num_prompt, **options):
    """How long the texts take, and the guesses there were."""
    engine, requests = tell(texts, num_prompt, **options)
    while engine.has_work:
        engine.step()
    assert [[*r.prompt_ids, *r.output_ids] for r in requests] == texts
    return engine.runner.now_ms, engine.drafter and engine.drafter.counts
