"""The engine process over a runner that computes nothing, so that it is there at once.

The name of the model says what befalls it: see `load`.
"""

import os
import sys
import time
from pathlib import Path

from haast.engine.drafts import Costs, Drafter
from haast.engine.engine import Engine
from haast.engine.kv_pages import KVPages
from haast.engine.limits import Limits
from haast.engine.pages import PagePool
from haast.engine.request import TokenLogprobs
from haast.engine.step import StepResult
from haast.errors import HaastError
from haast.serve.engine_process import main
from haast.serve.messages import EngineInfo, Found, Progress

VOCAB = 1000
MASK_SIZE = 128
PAGE_SIZE = 64
BATCH_SIZE = 8
"""Without a wish"""
FAILS_AT = 5
"""The step that goes wrong in models that are named after what befalls them"""


def token_at(first_id, position):
    """What the fake gives at a position of a text that begins with an id."""
    return (7 * first_id + position) % VOCAB


def answer(prompt_ids, num_tokens):
    return [token_at(prompt_ids[0], len(prompt_ids) + i) for i in range(num_tokens)]


class Done:
    """A step that has run; its masks are not looked at."""

    def __init__(self, result, num_masked=0):
        self.wait = lambda: result
        self.masks = lambda: memoryview(bytearray(num_masked * MASK_SIZE))
        self.sample = lambda: None


class FakeRunner:
    """Gives `token_at`; a step takes `step_s`."""

    num_short_steps = 0

    def __init__(self, fate="", step_s=0.0):
        self.fate = fate
        self.step_s = step_s
        self.num_steps = 0

    def launch(self, step):
        self.num_steps += 1
        if self.step_s:
            time.sleep(self.step_s)
        if self.num_steps == FAILS_AT:
            self.meet_fate()
        ids, logprobs = [], []
        for request, start, count, samples in zip(
            step.requests, step.starts, step.counts, step.samples, strict=True
        ):
            if samples:
                ids.append(token_at(request.prompt_ids[0], start + count))
                wanted = request.params.logprobs
                top = tuple((ids[-1] + i, -float(i)) for i in range(wanted or 0))
                logprobs.append(None if wanted is None else TokenLogprobs(-0.5, top))
        return Done(StepResult(ids, logprobs if any(logprobs) else None), len(step.masked))

    def meet_fate(self):
        if self.fate in ("failing", "dying"):
            raise RuntimeError("illegal memory access")
        if self.fate == "crashing":
            print("something is odd", file=sys.stderr, flush=True)
            os.abort()
        if self.fate == "hanging":
            time.sleep(1000)

    def forget(self, request):
        pass

    def is_alive(self):
        return self.fate != "dying"


def make_engine(config, fate="", grammars=None):
    # "slow" is slow enough to be caught in the middle, and quick enough for tests
    runner = FakeRunner(fate, 0.01 if fate == "slow" else 0.0)
    batch_size = config.max_batch_size or BATCH_SIZE
    num_pages = 16 * batch_size
    pools = PagePool(num_pages, "full"), PagePool(num_pages, "sliding")
    limits = Limits(
        max_length=config.max_length or 1000,
        max_batch_size=batch_size,
        max_queue_size=config.max_queue_size,
    )
    kv = KVPages(*pools, PAGE_SIZE, 128)
    wish = config.speculative_config
    drafter = wish and Drafter(wish, 4, PAGE_SIZE, Costs(allowance=1.0))
    return Engine(runner, kv, limits, VOCAB, frozenset(), grammars=grammars, drafter=drafter)


def load(config, tell):
    """The name is one of: fine, slow, failing, dying, crashing, hanging (at step FAILS_AT),
    unloadable, broken, endless (while loading).
    """
    name = config.model_path.name
    tell(Found("none"))
    tell(Progress(1, 2))
    if name == "unloadable":
        raise HaastError("no such model: unloadable")
    if name == "broken":
        raise RuntimeError("libcuda.so is missing")
    if name == "endless":
        time.sleep(1000)
    tell(Progress(2, 2))
    return make_engine(config, name), EngineInfo(
        model_path=str(config.model_path),
        found="nothing",
        tokenizer="none",
        max_length=config.max_length or 1000,
        max_batch_size=config.max_batch_size or BATCH_SIZE,
        vocab_size=VOCAB,
        kv_tokens=16 * (config.max_batch_size or BATCH_SIZE) * PAGE_SIZE,
        plan={"device": "none"},
        load_s=0.0,
    )


if __name__ == "__main__":
    os._exit(main(Path(sys.argv[1]), load))
