"""Prompts in haast-tiny's tongue: what the guard asks, and conversations of the same questions."""

import pytest

from haast.coherence.conversations import conversations
from haast.coherence.suite import read_suite
from haast.config import ConfigError
from haast.harmony import Tokenizer
from haast.model.locate import demo_folder
from haast.prompt import ChatOptions, PromptBuilder

LONGEST = 128
TOKENIZER = demo_folder() / "tokenizer.json"


@pytest.fixture(scope="module")
def suite():
    return read_suite(demo_folder())


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(TOKENIZER)


@pytest.fixture(scope="module")
def draw(suite, tokenizer):
    def call(count, longest=LONGEST, seed=0):
        prompts, stop_ids = conversations(suite, TOKENIZER, count, longest, seed)
        assert stop_ids == tokenizer.stop_ids
        return [tuple(ids) for ids in prompts]

    return call


def test_a_thousand_distinct_ones_are_a_function_of_the_seed(draw):
    prompts = draw(1000)
    assert len(set(prompts)) == 1000 and max(map(len, prompts)) <= LONGEST
    assert draw(1000) == prompts != draw(1000, seed=1)
    assert draw(6) == prompts[:6]


def test_what_the_guard_asks_comes_first(draw, suite, tokenizer):
    ask = PromptBuilder(tokenizer).ids
    asked = {tuple(ask(question, ChatOptions())) for question, _ in suite.answers}
    unseen = {text.prompt_ids for text in suite.held_out}
    short = asked | {ids for ids in unseen if len(ids) <= LONGEST}
    assert len(asked) == 200 and len(short) == 212
    assert set(draw(212)) == short
    assert set(draw(240, longest=400)) == asked | unseen


def test_then_come_questions_after_others(draw, suite, tokenizer):
    questions = dict(suite.answers)
    seen = set()
    for ids in draw(300)[212:]:
        text = tokenizer.decode(list(ids))
        head, *turns = text.split("<|start|>user<|message|>")
        assert turns.pop().removesuffix("<|end|><|start|>assistant") in questions
        said = [
            turn.split("<|end|><|start|>assistant<|channel|>final<|message|>") for turn in turns
        ]
        assert all(questions[asked] == answer.removesuffix("<|end|>") for asked, answer in said)
        effort = next(e for e in ("low", "medium", "high") if f"Reasoning: {e}" in head)
        seen.add((effort, len(said)))
    assert len(seen) == 8, "each but the guard's own: medium after none"


def test_too_few_of_that_length(draw):
    with pytest.raises(
        ConfigError, match=r"make 0 prompts of up to 9 tokens, not 2; ask for fewer"
    ):
        draw(2, longest=9)
