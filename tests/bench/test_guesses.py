"""The bench of guesses, rehearsed with a small network on the CPU."""

import json
import random

import pytest
import torch

from haast.bench import guesses
from haast.bench.whole_model import Subject
from haast.config import SpeculativeConfig
from haast.engine.drafts import Costs
from haast.model.random_weights import random_parameters

from ..engine.small_model import CONFIG, load_small, make_plan
from ..model.helpers import CPU


def test_texts():
    draw, prompt = random.Random(0), [*range(100, 200)]
    made = {name: text(draw, 1000, prompt, 95) for name, text in guesses.TEXTS.items()}
    assert all(len(text) == 95 and max(text) < 1000 for text in made.values())
    assert len({*made["fresh"]}) > 80 and {*made["few words"]} == {100, 101, 102}
    assert made["loop"][:45] == [*range(100, 120), *range(100, 120), *range(100, 105)]
    at = made["quote"][0]
    assert made["quote"][:30] == [*range(at, at + 30)]
    assert made["quote"][31:61] == [*range(made["quote"][31], made["quote"][31] + 30)]


def test_rows(monkeypatch):
    """Tokens are those of the texts, so that guesses at a loop are right."""
    monkeypatch.setattr(guesses, "ROUNDS", 1)
    torch.set_num_threads(1)
    parameters = random_parameters(CONFIG, "mxfp4", CPU).to(torch.float32)
    wish = SpeculativeConfig("ngram")
    loaded = load_small(parameters, speculative_config=wish, max_drafts=14, max_batch_size=2)
    loaded.engine.drafter.costs = Costs(allowance=0.5)
    launched = []
    launch = loaded.runner.launch
    monkeypatch.setattr(type(loaded.runner), "launch", lambda _, step: watched(step))

    def watched(step):
        launched.append(step)
        return launch(step)

    subject = Subject(CONFIG, make_plan(), loaded, 0.0)
    rows = list(guesses.measure(subject, (2,), input_len=45, output_len=40))
    assert [(row["text"], row["batch"]) for row in rows] == [(name, 2) for name in guesses.TEXTS]
    of = {row["text"]: row for row in rows}
    assert of["loop"]["right"] > 40 and of["loop"]["right"] > 0.7 * of["loop"]["guessed"]
    assert of["quote"]["right"] > 5
    assert of["few words"]["guessed"] > of["few words"]["right"] > 0
    assert of["fresh"]["guessed"] <= 3
    for row in rows:
        assert row["times"] == pytest.approx(
            row["guessing_tokens_per_s"] / row["plain_tokens_per_s"]
        )
        assert len(guesses.row_line(row)) <= len(guesses.HEADING) + 8
    json.dumps(rows)
    assert launched and "launch" not in vars(loaded.runner)
