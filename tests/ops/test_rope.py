"""Rotation against complex numbers, YaRN's tables against transformers."""

import cmath
import math
from dataclasses import replace

import pytest
import torch
from transformers import GptOssConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from haast.model.config_file import read_model_config
from haast.model.locate import packaged_folder
from haast.ops import rope_tables
from haast.ops.rope import rotate

from .pinned import close, normal

FILE = packaged_folder("gpt-oss-20b") / "config.json"
CONFIG = read_model_config(FILE)


def theirs(**changes):
    """inv_freq [D/2] and the attention factor, by transformers."""
    config = GptOssConfig.from_json_file(FILE)
    config.rope_parameters = config.rope_parameters | changes
    return ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")


def frequencies(config, head_dim=64):
    """Radians per position and concentration, read back from the tables at position 1."""
    cos, sin = (table[1].double() for table in rope_tables(config, head_dim, 2))
    return torch.atan2(sin, cos), torch.hypot(cos, sin)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"truncate": True},
        {"factor": 4.0},
        {"beta_fast": 16.0, "beta_slow": 2.0},
        {"rope_theta": 10000.0},
    ],
    ids=str,
)
def test_yarn_frequencies(changes):
    ours = {"theta" if name == "rope_theta" else name: v for name, v in changes.items()}
    got, concentration = frequencies(replace(CONFIG.rope, **ours))
    inv_freq, factor = theirs(**changes)
    torch.testing.assert_close(got, inv_freq.double(), rtol=2e-6, atol=0)
    torch.testing.assert_close(concentration, torch.full((32,), factor).double(), rtol=1e-6, atol=0)


def test_gpt_oss_blends_between_kept_and_interpolated():
    """Written out: concentration 0.1 ln 32 + 1; pairs 0 to 8 kept, from 18 on 32 times slower."""
    got, concentration = frequencies(CONFIG.rope)
    plain = 150000.0 ** -(torch.arange(32).double() / 32)
    ratio = got / plain
    assert concentration[0].item() == pytest.approx(0.1 * math.log(32) + 1, rel=1e-6)
    assert ratio[:9].tolist() == pytest.approx([1.0] * 9, rel=1e-6)
    assert ratio[18:].tolist() == pytest.approx([1 / 32] * 14, rel=1e-5)
    assert all(a > b for a, b in zip(ratio[8:18], ratio[9:19], strict=True))


def test_tables_cover_every_position():
    cos, sin = rope_tables(CONFIG.rope, 64, 4097)
    assert cos.shape == sin.shape == (4097, 32) and cos.dtype == sin.dtype == torch.float32
    inv_freq, factor = theirs()
    for position in (0, 1, 127, 4096):
        angles = position * inv_freq.double()
        close(cos[position][None], (angles.cos() * factor)[None], 5e-4)
        close(sin[position][None], (angles.sin() * factor)[None], 5e-4)


@pytest.mark.parametrize("dtype, rel", [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_rope_turns_pairs(dtype, rel):
    """Dimension i and i + D/2 are the real and imaginary part of a number turned by the angle."""
    head_dim, half, positions = 6, 3, [3, 0, 8, 3]
    x, angle = normal(4, 5, head_dim, dtype=dtype), normal(9, half, seed=2)
    turned = rotate(x, torch.tensor(positions), angle.cos(), angle.sin())
    expected = torch.empty(x.shape, dtype=torch.float64)
    for t, h, i in torch.cartesian_prod(*map(torch.arange, (4, 5, half))).tolist():
        turn = angle[positions[t], i]
        turn = complex(turn.cos().to(dtype), turn.sin().to(dtype))
        number = complex(x[t, h, i], x[t, h, i + half]) * turn
        expected[t, h, i], expected[t, h, i + half] = number.real, number.imag
    assert turned.dtype == dtype
    close(turned, expected, rel)


def test_rope_of_nothing():
    cos, sin = rope_tables(CONFIG.rope, 6, 3)
    turned = rotate(torch.empty(0, 5, 6), torch.empty(0, dtype=torch.int32), cos, sin)
    assert turned.shape == (0, 5, 6)


def test_scores_depend_on_the_distance_alone():
    """q at m times k at n is the same for every m - n, and differs with m - n."""
    cos, sin = rope_tables(CONFIG.rope, 64, 300)
    q, k = normal(1, 3, 64), normal(1, 3, 64, seed=1)

    def dot(m, n):
        turned_q = rotate(q, torch.tensor([m]), cos, sin)
        turned_k = rotate(k, torch.tensor([n]), cos, sin)
        return (turned_q.double() * turned_k.double()).sum(-1)[0]

    for distance in (0, 1, 40):
        expected = dot(distance, 0)
        for n in (1, 129, 250):
            torch.testing.assert_close(dot(n + distance, n), expected, rtol=1e-4, atol=1e-4)
    assert (dot(40, 0) - dot(1, 0)).abs().min() > 0.1


def test_the_concentration_scales_scores_by_its_square():
    cos, sin = rope_tables(CONFIG.rope, 64, 2)
    q = rotate(normal(1, 1, 64), torch.tensor([0]), cos, sin)
    square = (q.square().sum() / normal(1, 1, 64).square().sum()).item()
    assert square == pytest.approx((0.1 * math.log(32) + 1) ** 2, rel=1e-5)
    assert cmath.phase(complex(cos[0, 0], sin[0, 0])) == 0
