"""Numbers worked out by hand, and the suite's file."""

import json
import math

import pytest
import torch

from haast.coherence.metrics import (
    Agreement,
    answer_log_probs,
    count_markup,
    perplexity,
    repetition,
)
from haast.coherence.suite import Golden, HeldOut, Suite, read_suite
from haast.config import ConfigError
from haast.model.locate import demo_folder

SUITE = {
    "min_exact": 1,
    "max_perplexity": "1.5",
    "max_golden_median": 0.1,
    "max_golden_mean": 0.2,
    "golden": [{"ids": [1, 2], "log_probs": [-0.5]}],
    "answers": [{"prompt": "p", "answer": "a"}],
    "held_out": [{"prompt_ids": [1, 2], "answer_ids": [3]}],
}


@pytest.mark.parametrize(
    "token_ids, share",
    [
        ([], 0),
        ([1, 1, 1], 0),
        ([1, 2, 3, 4], 0),
        ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5),
        ([7] * 8, 4 / 5),
        ([1, 2, 3, 4, 5, 6, 2, 3, 4, 9], 0),
    ],
)
def test_repetition(token_ids, share):
    assert repetition(token_ids) == pytest.approx(share)


@pytest.mark.parametrize(
    "text, count",
    [
        ("A final analysis of assistants, finally.", 0),
        ("The assistant said: final answer", 0),
        ("<|end|>", 1),
        ("a<|start|>assistant<|channel|>final<|message|>b", 3),
        ("<| end |> <|END|>", 0),
        ("analysisThe user", 1),
        ("Yes.\nfinalNo.\ncommentary<x>", 2),
        ("Yes.assistantfinalNo.", 1),
        ("assistantanalysisThe user", 1),
    ],
)
def test_markup(text, count):
    assert count_markup(text) == count


def test_perplexity():
    assert perplexity([math.log(0.5), math.log(0.125)]) == pytest.approx(4)
    assert perplexity([0.0]) == 1
    assert perplexity([0.0, -math.inf]) == math.inf
    assert perplexity([0.0, math.nan]) == math.inf
    assert perplexity([-1e6]) == math.inf


def test_agreement():
    agreement = Agreement()
    agreement.add(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 3.0]]).log())
    assert agreement.divergence == pytest.approx(0.5 * math.log(4 / 3))
    assert agreement.top1 == 0
    same = torch.tensor([[0.0, 5.0], [2.0, 1.0], [1.0, 2.0]])
    agreement.add(same + 9, same - 3)  # a constant per row changes nothing
    assert agreement.positions == 4
    assert agreement.divergence == pytest.approx(0.5 * math.log(4 / 3) / 4)
    assert agreement.top1 == 3 / 4


def test_divergence_is_of_the_control_from_the_running_model():
    agreement = Agreement()
    agreement.add(torch.tensor([[1.0, 3.0]]).log(), torch.tensor([[0.0, 0.0]]))
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert agreement.divergence == pytest.approx(expected)


def test_answer_log_probs():
    logits = torch.tensor([[9.0, 0, 0], [0, 0, 0], [1, 0, 0], [5, 5, 5]])
    got = answer_log_probs(logits, 2, [2, 2, 1, 0])
    assert got == pytest.approx([-math.log(3), 1 - math.log(math.e + 2)])


def test_suite_is_read(tmp_path):
    assert read_suite(tmp_path) is None
    (tmp_path / "coherence.json").write_text(json.dumps(SUITE))
    assert read_suite(tmp_path) == Suite(
        answers=(("p", "a"),),
        held_out=(HeldOut((1, 2), (3,)),),
        golden=(Golden((1, 2), (-0.5,)),),
        min_exact=1.0,
        max_perplexity=1.5,
        max_golden_median=0.1,
        max_golden_mean=0.2,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"answers": [{"prompt": "p"}]},
        {"answers": ["p"]},
        {"answers": None},
        {"answers": []},
        {"held_out": []},
        {"held_out": [{"prompt_ids": 5, "answer_ids": [3]}]},
        {"golden": []},
        {"golden": [{"ids": [1, 2], "log_probs": [-0.5, -0.5]}]},
        {"min_exact": "much"},
        {"max_perplexity": None},
    ],
)
def test_a_broken_suite_is_named(tmp_path, change):
    path = tmp_path / "coherence.json"
    path.write_text(json.dumps(SUITE | change))
    with pytest.raises(ConfigError, match="not a coherence suite") as error:
        read_suite(tmp_path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    path.write_text("{")
    with pytest.raises(ConfigError, match=str(path)):
        read_suite(tmp_path)


def test_the_suite_of_haast_tiny_is_worth_asking():
    suite = read_suite(demo_folder())
    assert len(suite.answers) >= 200 and len(suite.held_out) >= 40
    assert suite.min_exact >= 0.95 and suite.max_perplexity <= 1.05
    assert sum(len(text.log_probs) for text in suite.golden) > 1000
