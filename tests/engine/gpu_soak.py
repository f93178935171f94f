"""Mixed traffic with random cancels on a GPU: nothing lost, no page leaked, flat memory.

python3 -m tests.engine.gpu_soak --seconds 300 [--guesses]
"""

import argparse
import json
import random
from collections import Counter
from pathlib import Path
from time import perf_counter

import torch

from haast.bench.whole_model import load_subject
from haast.config import EngineConfig, SpeculativeConfig
from haast.engine.drafts import Costs
from haast.engine.request import SamplingParams

MAX_LENGTH, BATCH = 4096, 128
ARRIVALS = 0.9
"""Of the steps, the share before which a request arrives"""
CANCELS = 0.12
"""Of the requests"""


def any_params(draw):
    """Greedy or sampled, with a few of everything that an engine keeps for a request."""
    params = {"max_new_tokens": draw.choice([1, 8, 60, 200, 600]), "ignore_eos": True}
    if draw.random() < 0.5:
        params |= {"temperature": 0}
    else:
        params |= {"top_p": draw.choice([1.0, 0.9]), "top_k": draw.choice([None, 40])}
        params |= {"seed": draw.randrange(1 << 30)}
    if draw.random() < 0.1:
        params |= {"repetition_penalty": 1.2, "frequency_penalty": 0.3}
    if draw.random() < 0.1:
        params |= {"logprobs": draw.choice([0, 5]), "logit_bias": {17: -5.0}}
    if draw.random() < 0.3:
        params["logit_bias"] = dict.fromkeys(draw.sample(range(1000), 3), 60.0)  # few words
    if draw.random() < 0.05:
        params |= {"n": 3}
    if draw.random() < 0.1:
        params |= {"allowed_token_ids": draw.sample(range(1000), 50)}
    return SamplingParams(**params)


def any_prompt(draw, vocab_size, shared):
    """Some begin with one of a few long prefixes."""
    size = min(2000, int(draw.lognormvariate(5.5, 1.2)) + 1)
    begin = draw.choice(shared) if draw.random() < 0.4 else []
    return [*begin, *(draw.randrange(vocab_size) for _ in range(size))]


def soak(seconds, has_guesses):
    """Figures of the run; raises if anything is lost."""
    wishes = {"max_batch_size": BATCH, "max_length": MAX_LENGTH, "load_format": "dummy"}
    if has_guesses:
        wishes["speculative_config"] = SpeculativeConfig("ngram", 7, 1, 3)
    subject = load_subject(EngineConfig(model_path=Path("gpt-oss-20b"), **wishes))
    engine, vocab_size = subject.loaded.engine, subject.config.vocab_size
    if has_guesses:  # as often as there is something to guess
        engine.drafter.costs = Costs(row=0.01, idle=0.0, other=0.0, beside=0.0, allowance=1.0)
    draw = random.Random(1)
    shared = [[draw.randrange(vocab_size) for _ in range(size)] for size in (300, 700, 1100)]
    alive, ends, memory = {}, Counter(), []
    started, submitted, tokens, mark = perf_counter(), 0, 0, 0.0
    while (elapsed := perf_counter() - started) < seconds or engine.has_work:
        if elapsed < seconds and draw.random() < ARRIVALS and len(alive) < 3 * BATCH:
            requests = engine.submit(any_prompt(draw, vocab_size, shared), any_params(draw))
            submitted += len(requests)
            alive.update(dict.fromkeys(requests, draw.random() < CANCELS))
        for request in [r for r, ends_early in alive.items() if ends_early][:2]:
            if draw.random() < 0.05:
                engine.cancel([request])
                alive[request] = False
        for output in engine.step():
            tokens += output.token_id is not None
            if output.finish_reason is not None:
                ends[output.finish_reason] += 1
                del alive[output.request]
        engine.kv.check()
        if elapsed > mark:
            memory.append(torch.cuda.memory_allocated())
            mark += max(1.0, seconds / 20)
    assert not alive and sum(ends.values()) == submitted, (len(alive), ends, submitted)
    engine.kv.check_idle()
    return {
        "seconds": perf_counter() - started,
        "requests": submitted,
        "ends": ends,
        "tokens": tokens,
        "preemptions": engine.scheduler.num_preemptions,
        "guesses": has_guesses and vars(engine.drafter.counts),
        "memory_allocated": memory,
        "reserved": torch.cuda.memory_reserved(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--guesses", action="store_true")
    asked = parser.parse_args()
    print(json.dumps(soak(asked.seconds, asked.guesses)))
