"""Sampling settings and the bookkeeping of one request."""

import math

import pytest

from haast import HaastError
from haast.engine.request import Request, SamplingError, SamplingParams

REFUSED = [
    ("temperature", -0.1, "a finite number >= 0"),
    ("temperature", math.inf, "a finite number >= 0"),
    ("temperature", math.nan, "a finite number >= 0"),
    ("top_k", 0, "at least 1"),
    ("top_k", -1, "at least 1"),
    ("top_p", 0.0, "in (0, 1]"),
    ("top_p", 1.01, "in (0, 1]"),
    ("top_p", math.nan, "in (0, 1]"),
    ("min_p", -0.01, "in [0, 1]"),
    ("min_p", 1.01, "in [0, 1]"),
    ("min_p", math.nan, "in [0, 1]"),
    ("seed", -1, "in [0, 2^64)"),
    ("seed", 1 << 64, "in [0, 2^64)"),
    ("max_new_tokens", 0, "at least 1"),
    ("max_new_tokens", -5, "at least 1"),
    ("stop", "", "one or more texts, none empty"),
    ("stop", ["a", ""], "one or more texts, none empty"),
]
ALLOWED = [
    ("temperature", 0),
    ("temperature", 100.0),
    ("top_k", None),
    ("top_k", 1),
    ("top_p", 1),
    ("top_p", 1e-9),
    ("min_p", 0),
    ("min_p", 1),
    ("seed", None),
    ("seed", 0),
    ("seed", (1 << 64) - 1),
    ("max_new_tokens", 1),
    ("max_new_tokens", None),
    ("stop", "x"),
    ("stop", ()),
    ("stop", ["a", "b"]),
]


@pytest.mark.parametrize("name, value, allowed", REFUSED)
def test_refusals_name_the_setting_its_value_and_what_is_allowed(name, value, allowed):
    with pytest.raises(SamplingError) as error:
        SamplingParams(**{name: value})
    assert str(error.value) == f"{name} must be {allowed}; got {value!r}"
    assert isinstance(error.value, HaastError)


@pytest.mark.parametrize("name, value", ALLOWED)
def test_limits_that_are_allowed(name, value):
    assert getattr(SamplingParams(**{name: value}), name) == value


def test_stop_strings():
    assert SamplingParams(stop="ab").stop_strings == ("ab",)
    assert SamplingParams(stop=["ab", "c"]).stop_strings == ("ab", "c")
    assert SamplingParams().stop_strings == ()


def request(prompt=(5, 6, 7), num_tokens=3, stop=(9,), **params):
    return Request(prompt, SamplingParams(**params), 0, num_tokens, frozenset(stop))


def test_token_ids_span_prompt_and_output():
    one = request()
    assert one.token_ids(0, 2) == [5, 6]
    assert one.token_ids(2, 3) == [7]
    one.append(8)
    assert one.token_ids(1, 4) == [6, 7, 8]
    assert one.token_ids(3, 4) == [8]
    assert one.num_tokens == 4 and one.max_tokens == 6


def test_length_is_counted_in_new_tokens():
    one = request()
    for token in (1, 2):
        one.append(token)
        assert one.finish_reason is None
    one.append(3)
    assert one.finish_reason == "length" and one.output_ids == [1, 2, 3]


def test_a_stop_token_ends_and_is_kept():
    one = request()
    one.append(9)
    assert one.finish_reason == "stop" and one.output_ids == [9]


def test_a_stop_token_as_the_last_is_a_stop():
    one = request(num_tokens=1)
    one.append(9)
    assert one.finish_reason == "stop"


def test_ignore_eos_goes_on():
    one = request(ignore_eos=True)
    for token in (9, 9):
        one.append(token)
        assert one.finish_reason is None
    one.append(9)
    assert one.finish_reason == "length"


def test_requests_are_equal_only_to_themselves():
    one, other = request(), request()
    assert one == one and one != other and len({one, other}) == 2


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("seed", 1.5, "a whole number"),
        ("top_k", 2.0, "a whole number"),
        ("max_new_tokens", True, "a whole number"),
        ("temperature", "a", "a number"),
        ("top_p", None, "a number"),
    ],
)
def test_settings_of_another_type_are_refused(name, value, allowed):
    with pytest.raises(SamplingError) as error:
        SamplingParams(**{name: value})
    assert str(error.value) == f"{name} must be {allowed}; got {value!r}"
