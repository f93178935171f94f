"""Weights, hidden states and settings that a wrong bound would get wrong, for CPU and GPU."""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from haast.bench.small_cases import settings
from haast.ops import Sampling, ShadowHead, linear, sample, shadow_of, shortlist
from haast.ops.shortlist.reference import ends

from ..mxfp4.exact import as_bits

KINDS = ("normal", "ties", "neighbours", "outliers", "sizes", "odd", "residual")
FILTERS = (
    {"temperature": 0.0},
    {"top_k": 1},
    {"top_k": 5, "temperature": 0.7},
    {"top_k": 50, "top_p": 0.9},
    {"top_k": 64, "top_p": 0.8, "min_p": 0.1, "temperature": 3.0},
    {"min_p": 0.05},
    {"min_p": 1.0, "temperature": 1e-6},
    {"min_p": 0.2, "top_p": 0.5},
    {"top_p": 0.9},
    {},
)


def make_weight(kind: str, num_rows: int, k: int, seed: int = 0) -> Tensor:
    """[V, K] bf16.

    ties: a dozen rows, many times; neighbours: rows that differ in one element by one bit;
    outliers: heavy tails; sizes: rows from 2^-60 to 2^30; odd: zero, NaN, infinite and huge rows
    """
    generator = torch.Generator().manual_seed(seed + 7 * num_rows + k)
    x = torch.randn(num_rows, k, generator=generator)
    rows = torch.arange(num_rows)
    if kind == "ties":
        x = x[rows % 12]
    if kind in ("outliers", "residual"):
        x = x * x * x
    if kind == "sizes":
        x = x * torch.exp2(torch.randint(-60, 31, (num_rows, 1), generator=generator).float())
    weight = x.bfloat16()
    if kind == "neighbours":
        weight = weight[:1].repeat(num_rows, 1)
        at = torch.randint(0, k, (num_rows,), generator=generator)
        weight.view(torch.int16)[rows, at] ^= 1
    if kind == "odd":
        weight[::5] = 0.0
        weight[3, 0], weight[4, k // 2], weight[6, -1] = torch.nan, torch.inf, -torch.inf
        weight[8] = 3e38
        weight[9] *= 2.0**-120
    return weight


def make_x(kind: str, weight: Tensor, shadow: ShadowHead, num_tokens: int, seed: int) -> Tensor:
    """[T, K] bf16; residual: along what codes leave of rows, where Cauchy-Schwarz is equality."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_tokens, weight.shape[1], generator=generator)
    if kind == "residual":
        rows = torch.randint(0, len(weight), (num_tokens,), generator=generator)
        codes, (scale, _) = shadow.codes[rows].double(), shadow.bounds[rows].double().unbind(1)
        x = (weight[rows].double() - codes * scale[:, None]).float()
        x[::2] *= -1
    if kind == "odd" and num_tokens > 3:
        x[1, 0], x[2, -1], x[3] = torch.nan, torch.inf, 0.0
    return x.bfloat16()


def mixed(num_rows: int, seed: int = 0) -> Sampling:
    """Every row filtered in its own way."""
    each = [vars(settings(1, torch.device("cpu"), **one)) for one in FILTERS]
    rows = [each[(i + seed) % len(each)] for i in range(num_rows)]
    merged = {name: torch.cat([row[name] for row in rows]) for name in each[0]}
    merged["seed"] = torch.arange(num_rows) * 0x123456789ABCDEF - (1 << 62) + seed
    return Sampling(**merged)


def on(sampling: Sampling, device: torch.device) -> Sampling:
    return Sampling(**{name: value.to(device) for name, value in vars(sampling).items()})


def check_ends(x: Tensor, logits: Tensor, shadow: ShadowHead) -> None:
    """Every logit lies between its ends, or has none."""
    lower, upper = ends(x, shadow)
    is_between = (lower <= logits) & (logits <= upper)
    has_none = ~torch.isfinite(upper) | ~torch.isfinite(lower)
    bad = ~(is_between | has_none)
    assert not bad.any(), f"{bad.nonzero()[0].tolist()}: {lower[bad][0]} {logits[bad][0]}"


def check_tokens(logits: Tensor, short: Tensor, sampling: Sampling) -> None:
    """The short logits are logits or -inf, and give the same tokens."""
    is_left_out = short == -torch.inf
    same = as_bits(short) == as_bits(logits)
    assert (same | is_left_out).all(), (~(same | is_left_out)).nonzero()[0].tolist()
    expected, got = sample.reference(logits, sampling), sample.reference(short, sampling)
    assert torch.equal(got, expected), (got != expected).nonzero().flatten().tolist()


def check_shortlist(
    x: Tensor, weight: Tensor, shadow: ShadowHead, sampling: Sampling
) -> tuple[str, ...]:
    """The kernel's logits are those of `linear` by our kernel, or -inf where tokens do not care."""
    kernel = shortlist.kernels[0]
    assert kernel.rejects(x, weight, shadow, sampling) is None
    logits = linear.kernels[0].fn(x, weight, None)
    short, again = (kernel.fn(x, weight, shadow, sampling) for _ in "ab")
    assert torch.equal(as_bits(short), as_bits(again))
    is_left_out = short == -torch.inf
    same = as_bits(short) == as_bits(logits)
    assert (same | is_left_out).all(), (~(same | is_left_out)).nonzero()[0].tolist()
    expected, got = sample(logits, sampling), sample(short, sampling)
    assert torch.equal(got, expected), (got != expected).nonzero().flatten().tolist()
    return kernel.symbols(x, weight, shadow, sampling)


def run_shortlist(device: torch.device) -> Iterator[str]:
    """Its kernels at small shapes; symbols launched."""
    for num_tokens, kind in product((1, 9), KINDS):
        weight = make_weight(kind, 1057, 192)
        x = make_x(kind, weight, shadow_of(weight), num_tokens, 3).to(device)
        weight = weight.to(device)
        yield from check_shortlist(x, weight, shadow_of(weight), on(mixed(num_tokens), device))
