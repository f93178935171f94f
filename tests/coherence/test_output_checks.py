"""What the guard says of answers by themselves, from answers made up for the purpose."""

import json
from dataclasses import replace

import pytest
import torch

from haast import coherence
from haast.__main__ import main
from haast.coherence import Check, Report
from haast.coherence.guard import _output_checks
from haast.result import Result, Timings

FINE = torch.zeros(3, 5)


def result(text="An answer.", reasoning="", token_ids=range(30), **anomalies) -> Result:
    return Result(
        text=text,
        reasoning=reasoning,
        finish_reason="stop",
        token_ids=tuple(token_ids),
        prompt_token_ids=(1,),
        logprobs=(),
        cached_tokens=0,
        error=None,
        tool_calls=(),
        anomalies=anomalies,
        timings=Timings(1, 30, 1.0, 2.0),
    )


def failures(*results, logits=FINE) -> dict[str, float]:
    checks = _output_checks(results, [FINE, logits])
    return {check.name: check.value for check in checks if not check.passed}


def test_good_answers_pass():
    assert failures(result(), result(reasoning="Thought.")) == {}


@pytest.mark.parametrize("where", ["text", "reasoning"])
def test_leaked_markup(where):
    assert failures(result(), result(**{where: "Yes.<|end|><|start|>"})) == {"leaked markup": 2}
    assert failures(result(**{where: "So.assistantfinalYes."})) == {"leaked markup": 1}


def test_a_single_answer_that_repeats_itself():
    loop = [1, 2, 3, 4, 5] * 20
    assert failures(*[result()] * 50, result(token_ids=loop)) == {
        "worst repetition": pytest.approx(92 / 97)
    }


def test_anomalies():
    assert failures(result(missing_end=2, cut_header=1), result()) == {"harmony anomalies": 3}


def test_too_few_answers():
    assert failures(*[result()] * 9, result(" \n")) == {}
    assert failures(*[result()] * 8, *[result("")] * 2) == {"answered": 0.8}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite(value):
    logits = FINE.clone()
    logits[1, 2] = logits[2, 0] = value
    assert failures(result(), logits=logits) == {"logits not finite": 2}


@pytest.mark.parametrize("is_ceiling, values", [(True, (0.5, 0.6)), (False, (0.5, 0.4))])
def test_a_limit_may_be_reached_and_not_crossed(is_ceiling, values):
    passed = [Check("x", value, 0.5, is_ceiling).passed for value in (*values, float("nan"))]
    assert passed == [True, False, False]


@pytest.fixture
def program(monkeypatch, capsys):
    """The command with a given report in place of a model's."""

    def run(report, *words):
        seen = []

        def check(config, progress):
            seen.append(config)
            progress(1, 2)
            return report

        monkeypatch.setattr(coherence, "check_coherence", check)
        with pytest.raises(SystemExit) as ended:
            main(["coherence", *words])
        return ended.value.code, *capsys.readouterr(), seen[0]

    return run


BAD = Report(
    model="some model",
    checks=(Check("a", 1.0, 2.0, True), Check("b", float("nan"), 0.5, False)),
    skipped={"c": "memory is short"},
    wrong=(("Define [x].", "yes", "no"),),
)
GOOD = Report("some model", BAD.checks[:1], {}, ())


def test_exit_code_and_document(program):
    code, out, err, config = program(BAD, "--json", "--devices", "cpu", "--max-length", "500")
    assert (code, err) == (1, "")
    assert json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) == {
        "model": "some model",
        "checks": [
            {"name": "a", "value": 1.0, "limit": 2.0, "is_ceiling": True, "passed": True},
            {"name": "b", "value": None, "limit": 0.5, "is_ceiling": False, "passed": False},
        ],
        "skipped": {"c": "memory is short"},
        "wrong": [["Define [x].", "yes", "no"]],
        "warning": None,
        "passed": False,
    }
    assert (config.devices, config.max_length, config.max_batch_size) == ("cpu", 500, 32)
    assert program(GOOD, "--json")[0] == 0


def test_table(program):
    code, out, _, _ = program(BAD)
    assert code == 1 and out.endswith("\nNOT coherent\n")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    assert ["a", "1", "<= 2", "pass"] in rows and ["b", "nan", ">= 0.5", "FAIL"] in rows
    assert ["c", "-", "", "not measured: memory is short"] in rows
    assert "Define [x].\n  expected 'yes'\n  given    'no'\n" in out
    code, out, err, _ = program(GOOD)
    assert code == 0 and out.endswith("\ncoherent\n") and err == ""


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_what_the_plan_warns_of(program, words):
    code, out, err, _ = program(replace(GOOD, warning="this GPU is slow"), *words)
    assert code == 0 and err == "haast: warning: this GPU is slow\n"
    assert "haast:" not in out


def test_a_mistake_is_not_a_failed_check(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["coherence", "--model-path", "no/such"])
    assert ended.value.code == 2 and "no/such" in capsys.readouterr().err
