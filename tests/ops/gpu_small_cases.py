"""Cases of the small kernels, shared by the GPU tests and the sanitizers."""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from haast.bench.small_cases import settings
from haast.ops import (
    Biases,
    Masks,
    Penalties,
    Sampling,
    add_rms_norm,
    adjust_logits,
    count_tokens,
    linear,
    reset_history,
    rms_norm,
    sample,
)
from haast.ops.sample import reference as sample_reference
from haast.ops.sample.philox import uniform

from ..mxfp4.exact import as_bits

DTYPES = (torch.bfloat16, torch.float32)
SLACK = 4e-6
"""How far fp32 weights move a boundary, as a share of all probability"""
FILTERS = (
    {"temperature": 0.0},
    {},
    {"temperature": 0.6},
    {"temperature": 8.0},
    {"temperature": 1e-30},
    {"top_k": 1},
    {"top_k": 20},
    {"top_k": 128},
    {"top_k": 129},
    {"top_k": 4096},
    {"top_k": 4097},
    {"top_p": 1e-9},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"top_p": 0.9999999},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_k": 50, "top_p": 0.9},
    {"top_k": 5000, "top_p": 0.99, "temperature": 3.0},
    {"top_k": 64, "top_p": 0.8, "min_p": 0.1, "temperature": 0.7},
)
LINEAR_SHAPES = ((1, 64), (37, 192), (1057, 128), (1500, 704), (9000, 320))
MORE_SHAPES = ((8, 64), (40, 192), (1064, 128), (1504, 704), (5272, 320))
"""For more tokens: multiples of 8 rows"""
"""N and K: fewer rows than warps, no whole number of rows a warp, one more than eight"""
KINDS = ("model", "flat", "ties", "masked", "odd")


def draw_logits(kind: str, num_rows: int, vocab: int, seed: int = 0) -> Tensor:
    """[B, V] fp32 on the CPU.

    model: a few far above the rest; flat: within one unit; ties: eleven different ones; masked: one
    in fifty is not -inf; odd: NaN and infinities, a row of -inf alone
    """
    generator = torch.Generator().manual_seed(seed + vocab)
    x = torch.randn(num_rows, vocab, generator=generator)
    if kind == "flat":
        return x / 6
    if kind == "ties":
        return (x * 1.5).round().clamp(-5, 5) * 0.5
    x = x * 2 + 4 * x.relu() ** 1.5
    if kind == "masked":
        hidden = torch.rand(num_rows, vocab, generator=generator) > 0.02
        hidden[:, vocab // 2] = False
        return x.masked_fill(hidden, -torch.inf)
    if kind == "odd":
        x[:, ::7] = torch.nan
        x[::2, vocab // 3] = torch.inf
        x[-1] = -torch.inf
    return x


def row_of(sampling: Sampling, row: int, **changes: Tensor) -> Sampling:
    """One row of the settings, on the CPU."""
    found = {name: value[row : row + 1].cpu() for name, value in vars(sampling).items()}
    return Sampling(**{**found, **changes})


def is_near_a_boundary(logits: Tensor, sampling: Sampling, row: int, got: int) -> bool:
    """Whether a token is right for numbers and filters that differ by SLACK from a row's own."""
    wide = logits[row : row + 1].cpu().double()
    wide = wide.nan_to_num(nan=-torch.inf, posinf=torch.finfo(logits.dtype).max, neginf=-torch.inf)
    own = row_of(sampling, row)
    scaled = wide / own.temperature.double()
    number = uniform(own.seed, own.position).item()
    for top, low in product((1 - SLACK, 1, 1 + SLACK), repeat=2):
        moved = row_of(
            sampling, row, top_p=own.top_p.double() * top, min_p=own.min_p.double() * low
        )
        kept = sample_reference._kept(scaled, moved)[0]
        cumulative = (scaled.softmax(-1)[0] * kept).cumsum(0)
        before = cumulative[got - 1] if got else 0.0
        target = number * cumulative[-1]
        slack = SLACK * cumulative[-1]
        if kept[got] and before - slack <= target <= cumulative[got] + slack:
            return True
    return False


def check_tokens(logits: Tensor, sampling: Sampling, got: Tensor) -> int:
    """The reference's tokens, or such next to a boundary; returns how many those are."""
    expected = sample.reference(logits, sampling)
    differ = (got.cpu() != expected.cpu()).nonzero().flatten().tolist()
    for row in differ:
        token = int(got[row])
        assert 0 <= token < logits.shape[1], f"row {row}: token {token}"
        assert is_near_a_boundary(logits, sampling, row, token), (
            f"row {row} gave {token} instead of {int(expected[row])}; no boundary is near"
        )
    return len(differ)


def mixed(num_rows: int, device: torch.device) -> Sampling:
    """Every row filtered in its own way."""
    each = [settings(1, torch.device("cpu"), **f) for f in FILTERS]
    rows = [each[i % len(each)] for i in range(num_rows)]
    merged = {name: torch.cat([getattr(r, name) for r in rows]) for name in vars(each[0])}
    merged["seed"] = torch.arange(num_rows) * 0x123456789ABCDEF - (1 << 62)
    merged["position"] = torch.arange(num_rows, dtype=torch.int32) * 1013
    return Sampling(**{name: value.to(device) for name, value in merged.items()})


def adjustments(num_rows: int, vocab: int, device: torch.device) -> tuple:
    """Penalties, masks and biases; every third row has none, every fourth no mask."""
    generator = torch.Generator().manual_seed(vocab)
    rows = torch.arange(num_rows)
    has_penalties, has_mask = rows % 3 != 1, rows % 4 != 2
    history = torch.zeros(num_rows + 1, vocab, dtype=torch.int16)
    for row in range(num_rows + 1):
        seen = torch.randint(0, vocab, (2, 40), generator=generator)
        reset_history(history, row, seen[0], seen[1, :30].repeat(2))
    three = 0.5 + torch.rand(3, num_rows, generator=generator)
    history_row = torch.where(has_penalties, num_rows - rows, -1).to(torch.int32)
    words = -(-vocab // 32)
    allowed = torch.randint(-(1 << 31), 1 << 31, (num_rows, words), generator=generator)
    mask_row = torch.where(has_mask, num_rows - 1 - rows, -1).to(torch.int32)
    at = torch.randperm(num_rows * vocab, generator=generator)[: 3 * num_rows]
    value = torch.randn(len(at), generator=generator)
    value[::5] = -torch.inf
    bias_row = (at // vocab).to(torch.int32)
    bias_row[::7] = -1
    return (
        Penalties(history.to(device), history_row.to(device), *three.to(device)),
        Masks(allowed.to(torch.int32).to(device), mask_row.to(device)),
        Biases(bias_row.to(device), (at % vocab).to(torch.int32).to(device), value.to(device)),
    )


def check_adjusted(num_rows: int, vocab: int, dtype: torch.dtype, device: torch.device) -> set[str]:
    """Kernel and reference agree bit for bit, each part alone and all together."""
    (kernel,) = adjust_logits.kernels
    seen: set[str] = set()
    penalties, masks, biases = adjustments(num_rows, vocab, torch.device("cpu"))
    on_gpu = adjustments(num_rows, vocab, device)
    logits = (draw_logits("model", num_rows, vocab)).to(dtype)
    for chosen in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)):
        pick = [a if c else None for a, c in zip((penalties, masks, biases), chosen, strict=True)]
        args = [a if c else None for a, c in zip(on_gpu, chosen, strict=True)]
        expected, got = logits.clone(), logits.to(device)
        adjust_logits.reference(expected, *pick)
        kernel.fn(got, *args)
        seen.update(kernel.symbols(got, *args))
        same = as_bits(got.cpu()) == as_bits(expected)
        assert same.all(), f"{chosen}: {(~same).nonzero()[0].tolist()} of {num_rows, vocab, dtype}"
    return seen


def check_counted(num_rows: int, vocab: int, device: torch.device) -> set[str]:
    """Histories agree after the kernel has counted a token of each row."""
    (kernel,) = count_tokens.kernels
    penalties, _, _ = adjustments(num_rows, vocab, torch.device("cpu"))
    history = penalties.history
    history[:, 0] = 0x7FFF
    tokens = torch.arange(num_rows) % vocab
    got = history.to(device)
    args = (got, penalties.history_row.to(device), tokens.to(device))
    kernel.fn(*args)
    count_tokens.reference(history, penalties.history_row, tokens)
    assert torch.equal(got.cpu(), history)
    return {*kernel.symbols(*args)}


def check_norms(num_rows: int, hidden: int, device: torch.device) -> set[str]:
    """Sums equal; norms within one unit in the last place of bf16, and the same bits twice."""
    generator = torch.Generator().manual_seed(num_rows + hidden)
    x, delta = (torch.randn(num_rows, hidden, generator=generator).bfloat16() * 3 for _ in "ab")
    weight = torch.randn(hidden, generator=generator).bfloat16()
    args = [v.to(device) for v in (x, delta, weight)]
    total, normed = add_rms_norm.kernels[0].fn(*args, 1e-5)
    assert torch.equal(total.cpu(), x + delta)
    alone = rms_norm.kernels[0].fn(total, args[2], 1e-5)
    assert torch.equal(alone, normed)
    expected = rms_norm.reference(x + delta, weight, 1e-5)
    ulps = (as_bits(normed.cpu()).int() - as_bits(expected).int()).abs()
    assert not num_rows or ulps.max() <= 1, f"{num_rows, hidden}: {ulps.max()} ulp"
    symbols = add_rms_norm.kernels[0].symbols(*args, 1e-5)
    return {*symbols, *rms_norm.kernels[0].symbols(args[0], args[2], 1e-5)}


def linear_case(
    num_rows: int, k: int, num_tokens: int, has_bias: bool, device: torch.device
) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, weight and bias; made on the CPU."""
    generator = torch.Generator().manual_seed(num_rows + k + num_tokens)
    sizes = ((num_tokens, k), (num_rows, k), (num_rows,))
    x, weight, bias = (torch.randn(s, generator=generator).bfloat16().to(device) for s in sizes)
    return x, weight, bias if has_bias else None


def check_linear(
    num_rows: int, k: int, num_tokens: int, has_bias: bool, device: torch.device
) -> set[str]:
    """Every token as near to fp64 as rounding once allows; the same bits twice."""
    x, weight, bias = linear_case(num_rows, k, num_tokens, has_bias, device)
    kernel = next(k for k in linear.kernels if k.rejects(x, weight, bias) is None)
    got, again = kernel.fn(x, weight, bias), kernel.fn(x, weight, bias)
    assert torch.equal(as_bits(got.cpu()), as_bits(again.cpu()))
    expected = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    error = (got.double() - expected).abs()
    scale = expected.abs() * 2**-8 + k**0.5 * 2**-18
    worst = (error / scale).amax(1)
    assert worst.max() <= 1, f"token {int(worst.argmax())}: {float(worst.max()):.3g} of the limit"
    return {*kernel.symbols(x, weight, bias)}


def run_small(device: torch.device) -> Iterator[str]:
    """Every kernel of this file at small shapes; symbols launched."""
    for dtype, vocab in product(DTYPES, (37, 4096)):
        logits = draw_logits("ties", len(FILTERS), vocab).to(dtype).to(device)
        rows = mixed(len(FILTERS), device)
        kernel = sample.kernels[0]
        check_tokens(
            logits.cpu(), mixed(len(FILTERS), torch.device("cpu")), kernel.fn(logits, rows)
        )
        yield from kernel.symbols(logits, rows)
        yield from check_adjusted(5, vocab, dtype, device)
    yield from check_counted(5, 37, device)
    for num_tokens, shape in product((1, 8, 9, 16), LINEAR_SHAPES[:3]):
        yield from check_linear(*shape, num_tokens, True, device)
    for num_tokens, shape in ((17, MORE_SHAPES[0]), (64, MORE_SHAPES[2]), (130, MORE_SHAPES[1])):
        yield from check_linear(*shape, num_tokens, True, device)
    yield from check_linear(*MORE_SHAPES[4], 33, False, device)
    for hidden in (8, 352, 2880):
        yield from check_norms(3, hidden, device)
