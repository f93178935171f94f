"""The check over results that nobody measured: what it runs, how often, and what it says."""

import pytest

from haast.baseline.check import check, measure_new
from haast.baseline.known_good import KNOWN_GOOD, Case
from tests.baseline.made_up import (
    COHERENCE,
    DECODE,
    KERNELS,
    PREFILL,
    Runs,
    baseline,
    coherence,
    decode,
    noisy,
    prefill,
)

SLOW = decode(b1=54.0, b64=70.0)
FINE = decode(b1=60.0, b64=70.0)


def judged(runs, made=None):
    told = []
    outcome = check(made or baseline(), 3, 0.03, runs, told.append)
    return outcome, told


def words(outcome):
    return {verdict.metric: verdict.word for verdict in outcome.verdicts}


def test_nothing_has_changed():
    runs = Runs()
    outcome, told = judged(runs)
    assert outcome.code == 0 and set(words(outcome).values()) == {"same"}
    timed = ["decode", "prefill"] * 3
    assert runs.ran == ["coherence", *timed, "kernels"], "in turns, each once a round"
    assert told[0] == "1/1: haast coherence --json"
    assert told[3] == "2/3: haast bench decode --batch 1,64"


def test_a_slowed_op():
    runs = Runs(decode=SLOW)
    outcome, told = judged(runs)
    assert outcome.code == 1
    assert words(outcome) == {"decode_b1": "worse", "decode_b64": "same", "prefill_1024": "same"}
    assert runs.ran.count("decode") == 6 and runs.ran.count("prefill") == 3
    assert "again, as it looks worse or noisy: decode_b1" in told


def test_a_disturbance_is_gone_the_second_time():
    outcome, _ = judged(Runs(decode=[SLOW, SLOW, SLOW, FINE]))
    assert outcome.code == 0 and words(outcome)["decode_b1"] == "same"


def test_what_is_slow_only_the_second_time_was_not_asked():
    runs = Runs(decode=[FINE, FINE, FINE, SLOW])
    assert judged(runs)[0].code == 0 and runs.ran.count("decode") == 3


def test_noise_is_measured_again_and_then_said():
    wild = [decode(b1=share, b64=70.0) for share in noisy(-40, 0, 40)]
    outcome, _ = judged(Runs(decode=[*wild, FINE]))
    assert outcome.code == 0
    outcome, _ = judged(Runs(decode=[*wild, *wild]))
    assert outcome.code == 125 and words(outcome)["decode_b1"] == "noisy"


def test_an_incoherent_model_has_no_speed():
    runs = Runs(coherence=coherence(passed=False))
    outcome, _ = judged(runs)
    assert (outcome.code, outcome.verdicts, runs.ran) == (1, (), ["coherence"])


def test_a_result_that_is_missing():
    outcome, _ = judged(Runs(decode=decode(b1=60.0)))
    assert outcome.code == 125
    assert words(outcome) == {"decode_b1": "same", "decode_b64": "missing", "prefill_1024": "same"}


@pytest.mark.parametrize("broken", ["decode", "prefill", "kernels", "coherence"])
def test_a_command_that_fails(broken):
    runs = Runs(**{broken: "ended with signal 11"})
    outcome, _ = judged(runs)
    assert outcome.code == 125 and outcome.problems == (f"{broken}: ended with signal 11",)
    assert runs.ran.count(broken) == 1, "it would fail again"


def test_a_command_that_fails_in_a_later_round():
    outcome, _ = judged(Runs(decode=[FINE, "ended with code 2"]))
    assert outcome.code == 125 and words(outcome)["decode_b1"] == "missing"


def test_a_command_that_fails_when_it_is_run_again():
    outcome, _ = judged(Runs(decode=[SLOW, SLOW, SLOW, "ended with code 2"]))
    assert outcome.code == 125 and words(outcome)["decode_b1"] == "missing"


def test_a_result_without_numbers():
    outcome, _ = judged(Runs(prefill=prefill(float("nan"))))
    assert outcome.code == 125 and outcome.problems == ("prefill: prefill_1024 is nan",)


def test_worse_is_worse_whatever_is_missing():
    assert judged(Runs(decode=SLOW, prefill="ended with code 2"))[0].code == 1


def test_a_check_of_coherence_that_is_no_longer_made():
    outcome, _ = judged(Runs(coherence=coherence(names=("answered",))))
    assert outcome.code == 125
    assert outcome.problems == ("coherence: 'exact answers' was not checked",)
    more = coherence(names=("exact answers", "answered", "a new one"))
    assert judged(Runs(coherence=more))[0].code == 0


def saved(runs):
    cases = [COHERENCE, DECODE, PREFILL, KERNELS]
    return measure_new(cases, 3, runs, lambda line: None)


def test_what_may_become_a_baseline():
    outcome = saved(Runs())
    assert outcome.code == 0 and [m.case for m in outcome.collected.cases] == [
        COHERENCE,
        DECODE,
        PREFILL,
        KERNELS,
    ]
    assert saved(Runs(coherence=coherence(passed=False))).code == 1
    assert saved(Runs(coherence="hung")).code == saved(Runs(kernels="hung")).code == 125


def test_a_noisy_baseline_is_measured_again_and_then_refused():
    wild = [*map(prefill, noisy(-40, 0, 40, at=50.0))]
    runs = Runs(prefill=[*wild, prefill(50.0)])
    outcome = saved(runs)
    assert (
        outcome.code == 0
        and [metric.value for metric in outcome.collected.metrics][-3:] == [50] * 3
    )
    assert (runs.ran.count("prefill"), runs.ran.count("decode")) == (6, 3)
    outcome = saved(Runs(prefill=[*wild, *wild]))
    assert outcome.code == 125 and outcome.problems == (
        "prefill_1024 differs too much from run to run to compare with: by 23.1 %",
    )


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_set_asks_coherence_first_and_commands_are_ours(kind):
    from tests.test_docs import problem_of

    cases = KNOWN_GOOD[kind]
    assert cases[0].name == "coherence" and len({case.name for case in cases}) == len(cases)
    assert [problem_of(f"haast {' '.join(case.command)}") for case in cases] == [None] * len(cases)
    assert all(isinstance(case, Case) for case in cases)
