"""The head with a shadow gives the tokens of the whole one, whatever weights and hidden states."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from haast.bench.small_cases import settings as sampled_by
from haast.ops import linear
from haast.ops.shortlist import ShadowHead, shadow_of, shortlist
from haast.ops.shortlist.reference import ends
from haast.ops.shortlist.shadow import shadow_bytes

from ..mxfp4.exact import as_bits
from .shortlist_cases import KINDS, check_ends, check_tokens, make_weight, make_x, mixed

CPU = torch.device("cpu")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    num_rows=st.integers(1, 700),
    k=st.sampled_from((64, 192, 320)),
    num_tokens=st.integers(1, 16),
    seed=st.integers(0, 1 << 20),
)
def test_same_tokens(kind, num_rows, k, num_tokens, seed):
    num_rows = max(num_rows, 10)
    weight = make_weight(kind, num_rows, k, seed)
    shadow = shadow_of(weight)
    x = make_x(kind, weight, shadow, num_tokens, seed)
    logits = linear.reference(x, weight, None)
    check_ends(x, logits, shadow)
    sampling = mixed(num_tokens, seed)
    check_tokens(logits, shortlist.reference(x, weight, shadow, sampling), sampling)


def test_same_tokens_in_fp32():
    weight = torch.randn(500, 256, generator=torch.Generator().manual_seed(1))
    shadow = shadow_of(weight)
    x = torch.randn(8, 256, generator=torch.Generator().manual_seed(2))
    check_ends(x, linear.reference(x, weight, None), shadow)
    sampling = mixed(8)
    short = shortlist.reference(x, weight, shadow, sampling)
    check_tokens(linear.reference(x, weight, None), short, sampling)


def test_ends_are_as_near_as_they_can_be():
    """Along a row's residual the logit all but reaches an end: a twentieth less would be wrong."""
    weight = make_weight("residual", 64, 320).float()
    shadow = shadow_of(weight)
    scale, _ = shadow.bounds.unbind(1)
    x = weight - shadow.codes * scale[:, None]
    for sign in (1.0, -1.0):
        logits = linear.reference(sign * x, weight, None).diagonal()
        lower, upper = (end.diagonal() for end in ends(sign * x, shadow))
        reached = (logits - lower) / (upper - lower)
        assert ((reached > 0.975) if sign > 0 else (reached < 0.025)).all()
        assert ((reached > 0) & (reached < 1)).all()


def test_few_tokens_are_left():
    """Of normal rows: those within two radii of the largest, 0.24 standard deviations here."""
    weight = make_weight("normal", 8192, 704)
    shadow = shadow_of(weight)
    x = make_x("normal", weight, shadow, 8, 3)
    sampling = sampled_by(8, CPU, temperature=0.0)
    counts = (shortlist.reference(x, weight, shadow, sampling) > -torch.inf).sum(1)
    assert counts.max() < 82 and counts.min() >= 1
    sampling = sampled_by(8, CPU, top_k=50)
    counts = (shortlist.reference(x, weight, shadow, sampling) > -torch.inf).sum(1)
    assert counts.max() < 410 and counts.min() >= 50


@pytest.mark.parametrize("filters", [{}, {"top_p": 0.9}, {"top_p": 0.9, "min_p": 0.5}])
def test_without_a_filter_that_bounds_all_logits_are_there(filters):
    weight = make_weight("normal", 300, 128)
    shadow = shadow_of(weight)
    x = make_x("normal", weight, shadow, 4, 5)
    got = shortlist.reference(x, weight, shadow, sampled_by(4, CPU, **filters))
    assert torch.equal(got, linear.reference(x, weight, None))


def test_hidden_states_without_a_bound_get_all_logits():
    weight = make_weight("normal", 300, 128)
    shadow = shadow_of(weight)
    x = make_x("odd", weight, shadow, 4, 5)
    x[0, 5] = 3e38
    short = shortlist.reference(x, weight, shadow, sampled_by(4, CPU, temperature=0.0))
    assert torch.equal(as_bits(short), as_bits(linear.reference(x, weight, None)))


def test_min_p_leaves_all_that_may_be_kept():
    """Logits from 0 to 10 in steps of 1/128, known to within 1/64: those from 10 + T ln(min_p)."""
    weight = torch.zeros(1281, 64, dtype=torch.bfloat16)
    weight[:, 0] = torch.arange(1281) / 128
    weight[:, 1] = 1.0
    x = torch.tensor([[1.0] + [0.0] * 63], dtype=torch.bfloat16)
    shadow = shadow_of(weight)
    logits = linear.reference(x, weight, None)
    for temperature, min_p in ((0.5, 0.05), (2.0, 0.2)):
        sampling = sampled_by(1, CPU, temperature=temperature, min_p=min_p)
        short = shortlist.reference(x, weight, shadow, sampling)
        check_tokens(logits, short, sampling)
        least = 10 + temperature * math.log(min_p)
        kept = logits[0] >= least
        assert (short[0][kept] > -torch.inf).all()
        assert short[0][~kept].max() < least and (short > -torch.inf).sum() < kept.sum() + 40


def test_rows_that_tie_stay_and_the_first_one_is_picked():
    """The winner, its copy, and one whose logit rounds to the same bf16 but comes first."""
    weight = make_weight("normal", 400, 256)
    x = torch.ones(1, 256, dtype=torch.bfloat16)
    weight[100:] = 0.25
    weight[50] = 0.25
    weight[50, 0] = 0.2490234375  # 63.999, which rounds to the others' 64
    shadow = shadow_of(weight)
    sampling = sampled_by(1, CPU, temperature=0.0)
    short = shortlist.reference(x, weight, shadow, sampling)
    assert (short[0, 100:] == 64).all() and short[0, 50] == 64
    assert short.argmax() == 50
    check_tokens(linear.reference(x, weight, None), short, sampling)


def test_codes_and_bounds():
    weight = make_weight("odd", 12, 64)
    shadow = shadow_of(weight)
    scale, radius = shadow.bounds.unbind(1)
    assert shadow.codes.dtype == torch.int8 and shadow.codes.abs().max() == 127
    without = [3, 4, 6, 8]
    assert torch.isinf(radius).nonzero().flatten().tolist() == without
    assert (scale[without] == 0).all() and not shadow.codes[without].any()
    assert (scale[[0, 5, 9, 10]] == 0).all() and (radius[[0, 5, 10]] == 0).all()
    assert radius[9] >= weight[9].double().norm() > 0
    plain = [1, 2, 7, 11]
    left = weight[plain].double() - shadow.codes[plain].double() * scale[plain, None].double()
    assert (radius[plain] > left.norm(dim=1)).all()
    assert (radius[plain] < 1.01 * left.norm(dim=1)).all()
    assert (scale[plain] == weight[plain].float().abs().amax(1) / 127).all()


def test_bytes():
    weight = make_weight("normal", 5000, 64)  # in more than one piece
    shadow = shadow_of(weight)
    assert shadow.nbytes == shadow_bytes(5000, 64) == 5000 * 72 + 8
    whole = shadow_of(weight[4990:])
    assert torch.equal(shadow.codes[4990:], whole.codes)
    assert isinstance(whole, ShadowHead) and torch.equal(shadow.bounds[4990:], whole.bounds)
