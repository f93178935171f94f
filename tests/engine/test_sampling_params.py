"""Settings beyond the first ones, which test_request.py covers: limits, and what is refused."""

import math

import pytest

from haast.engine.request import Request, SamplingError, SamplingParams

PENALTY = "in [-2, 2]"
BIAS = "token ids with numbers in [-100, 100]"
REFUSED = [
    ("repetition_penalty", 0.0, "a finite number > 0"),
    ("repetition_penalty", -1.0, "a finite number > 0"),
    ("repetition_penalty", math.inf, "a finite number > 0"),
    ("repetition_penalty", math.nan, "a finite number > 0"),
    ("repetition_penalty", "1", "a number"),
    ("presence_penalty", 2.01, PENALTY),
    ("presence_penalty", math.nan, PENALTY),
    ("frequency_penalty", -2.01, PENALTY),
    ("frequency_penalty", None, "a number"),
    ("logit_bias", {1: 101}, BIAS),
    ("logit_bias", {1: math.nan}, BIAS),
    ("logit_bias", {-1: 1.0}, BIAS),
    ("logit_bias", {"1": 1.0}, BIAS),
    ("logit_bias", {1: True}, BIAS),
    ("stop_token_ids", [-1], "token ids"),
    ("stop_token_ids", [1.0], "token ids"),
    ("stop_token_ids", ["a"], "token ids"),
    ("min_tokens", -1, "at least 0 and at most max_new_tokens"),
    ("min_tokens", 1.0, "a whole number"),
    ("min_tokens", None, "a whole number"),
    ("n", 0, "in [1, 128]"),
    ("n", 129, "in [1, 128]"),
    ("n", True, "a whole number"),
    ("logprobs", -1, "in [0, 20]"),
    ("logprobs", 21, "in [0, 20]"),
    ("logprobs", True, "a whole number"),
]
ALLOWED = [
    ("repetition_penalty", 1e-3),
    ("repetition_penalty", 5),
    ("presence_penalty", -2),
    ("frequency_penalty", 2),
    ("logit_bias", None),
    ("logit_bias", {0: -100, 7: 100.0}),
    ("stop_token_ids", (3, 0)),
    ("min_tokens", 0),
    ("min_tokens", 1000),
    ("n", 1),
    ("n", 128),
    ("logprobs", None),
    ("logprobs", 0),
    ("logprobs", 20),
]


@pytest.mark.parametrize("name, value, allowed", REFUSED)
def test_refusals_name_the_setting_its_value_and_what_is_allowed(name, value, allowed):
    with pytest.raises(SamplingError) as error:
        SamplingParams(**{name: value})
    assert str(error.value) == f"{name} must be {allowed}; got {value!r}"


@pytest.mark.parametrize("name, value", ALLOWED)
def test_limits_that_are_allowed(name, value):
    assert getattr(SamplingParams(**{name: value}), name) == value


def test_min_tokens_needs_room():
    assert SamplingParams(min_tokens=5, max_new_tokens=5).min_tokens == 5
    with pytest.raises(SamplingError, match="min_tokens must be at least 0 and at most max_new"):
        SamplingParams(min_tokens=6, max_new_tokens=5)


def request(**params):
    return Request([5, 6, 7], SamplingParams(**params), 0, 4, frozenset([9]))


def test_what_ends_a_request():
    assert request().end_ids == {9}
    assert request(stop_token_ids=[3]).end_ids == {3, 9}
    assert request(stop_token_ids=[3], ignore_eos=True).end_ids == {3}


def test_tokens_across_prompt_and_output():
    one = request()
    for token in (1, 2, 3):
        one.append(token)
    every = [5, 6, 7, 1, 2, 3]
    for start in range(7):
        for stop in range(start, 7):
            assert one.token_ids(start, stop) == every[start:stop]
    assert one.last_position == 6


def test_a_stop_token_before_min_tokens_is_a_token_like_others():
    one = request(min_tokens=3)
    for token in (9, 9):
        one.append(token)
        assert one.finish_reason is None
    one.append(9)
    assert one.finish_reason == "stop" and one.output_ids == [9, 9, 9]
