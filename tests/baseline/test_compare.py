"""Better, same or worse, and the exit codes, from numbers worked out by hand."""

import math
import random

import pytest

from haast.baseline.compare import Verdict, compare, exit_code, standard_error
from tests.baseline.made_up import noisy

QUIET = noisy(0, 0.1, -0.1)


def word(before, now, tolerance=0.03):
    (verdict,) = compare({"m": before}, {"m": now}, tolerance)
    return verdict.word


def test_standard_error():
    assert standard_error([60.0]) == standard_error([60.0, 60.0]) == 0
    assert standard_error([9.0, 10.0, 11.0]) == pytest.approx(1 / 10 / math.sqrt(3))
    assert standard_error([90.0, 100.0, 110.0]) == standard_error([9.0, 10.0, 11.0])


def test_a_verdict_in_full():
    (verdict,) = compare({"m": [9.0, 10.0, 11.0]}, {"m": [8.0, 8.0, 8.0]}, 0.03)
    assert (verdict.metric, verdict.before, verdict.now) == ("m", 10.0, 8.0)
    assert verdict.change == pytest.approx(-0.2)
    assert verdict.allowed == pytest.approx(3 * 0.1 / math.sqrt(3))
    assert verdict.word == "worse"


@pytest.mark.parametrize(
    "percent, expected",
    [(0, "same"), (-2.9, "same"), (-3.2, "worse"), (2.9, "same"), (3.2, "better"), (-60, "worse")],
)
def test_the_tolerance_where_runs_agree(percent, expected):
    assert word(QUIET, noisy(percent, percent + 0.1, percent - 0.1)) == expected


def test_noise_widens_what_is_the_same():
    shaky = noisy(-6, 0, 6)
    assert word(QUIET, noisy(-8, -8, -8)) == "worse"
    assert word(shaky, noisy(-8, -8, -8)) == "same"
    assert word(QUIET, noisy(-14, -8, -2)) == "same"


def test_a_median_is_not_moved_by_one_bad_run():
    assert word(QUIET, noisy(0, 0.1, -9)) == "same"


def test_too_noisy_to_tell_is_not_the_same():
    wild = noisy(-30, 0, 30)
    assert word(wild, QUIET) == word(QUIET, wild) == "noisy"
    assert word(wild, noisy(-90, -90, -90)) == "worse", "that is more than any noise here"
    assert word(wild, QUIET, tolerance=0.6) == "same", "nobody asked for better"


def test_missing_and_new():
    verdicts = compare({"a": QUIET, "b": QUIET}, {"b": QUIET, "c": QUIET}, 0.03)
    assert [(v.metric, v.word) for v in verdicts] == [("a", "missing"), ("b", "same"), ("c", "new")]
    assert verdicts[0] == Verdict("a", "missing", verdicts[0].before, None, None, None)


def verdicts(*words):
    return [Verdict("m", word, 1.0, 1.0, 0.0, 0.0) for word in words]


@pytest.mark.parametrize(
    "is_coherent, words, is_whole, code",
    [
        (True, ("same", "better", "new"), True, 0),
        (True, (), True, 0),
        (True, ("same", "worse"), True, 1),
        (False, ("same",), True, 1),
        (False, ("missing",), False, 1),
        (None, ("worse",), False, 1),
        (True, ("worse", "missing", "noisy"), False, 1),
        (True, ("same", "missing"), True, 125),
        (True, ("same", "noisy"), True, 125),
        (None, ("same",), True, 125),
        (True, ("same",), False, 125),
    ],
)
def test_exit_codes(is_coherent, words, is_whole, code):
    assert exit_code(is_coherent, verdicts(*words), is_whole=is_whole) == code


def test_how_often_it_is_wrong():
    """Runs with 1 % of noise: hardly ever a false alarm, and 8 % less is seen."""
    draw = random.Random(3)

    def runs(middle):
        return [draw.gauss(middle, middle / 100) for _ in range(3)]

    same = [word(runs(60), runs(60)) for _ in range(400)]
    slow = [word(runs(60), runs(55)) for _ in range(400)]
    assert same.count("worse") <= 4 and slow.count("worse") >= 380
