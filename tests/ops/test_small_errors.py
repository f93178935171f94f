"""What the kernels for normalising and sampling refuse, and that the GPU tests can fail."""

from dataclasses import replace

import pytest
import torch

from haast.bench.cases import BUILDERS, Draw, read_config
from haast.bench.small_cases import settings
from haast.ops import Masks, add_rms_norm, adjust_logits, count_tokens, rms_norm, sample

from .gpu_small_cases import draw_logits, is_near_a_boundary, mixed, row_of

CPU, META = torch.device("cpu"), torch.device("meta")
CONFIG = replace(read_config("gpt-oss-20b"), vocab_size=70, hidden_size=64)


def arguments(op):
    """Good ones, on no device."""
    return [*BUILDERS[op.name](Draw.on(META), CONFIG, 3)]


def refusal(op, **changes):
    """What a kernel says to good arguments, some of which are replaced."""
    (kernel,) = op.kernels
    names = kernel.fn.__code__.co_varnames
    args = dict(zip(names, arguments(op), strict=False))
    return kernel.rejects(*{**args, **changes}.values())


def wrong_rows(name, value):
    return {"sampling": replace(settings(3, META), **{name: value})}


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device=META)


WRONG = {
    "logits": (sample, {"logits": meta(3, 70, dtype=torch.float16)}, "logits must be torch.bfloat"),
    "no tokens": (sample, {"logits": meta(3, 0)}, "logits must have at least one token; got .3, 0"),
    "a view": (sample, {"logits": meta(70, 3).T}, r"logits must be contiguous; its strides are"),
    "top_k": (sample, wrong_rows("top_k", meta(3)), "top_k must be torch.int32; got torch.float32"),
    "seed": (sample, wrong_rows("seed", meta(2, dtype=torch.int64)), r"seed must have shape .3.; "),
    "device": (
        sample,
        wrong_rows("min_p", torch.zeros(3)),
        "min_p is on cpu, but logits is on meta",
    ),
    "history": (count_tokens, {"history": meta(3, 70)}, "history must be torch.int16; got"),
    "token_ids": (count_tokens, {"token_ids": meta(3)}, "token_ids must be torch.int64; got"),
    "allowed": (
        adjust_logits,
        {"masks": Masks(meta(3, 2, dtype=torch.int32), meta(3, dtype=torch.int32))},
        r"allowed must have shape \['\*', 3\]; got \[3, 2\]",
    ),
    "weight": (rms_norm, {"weight": meta(65)}, r"weight must have shape \[64\]; got \[65\]"),
    "delta": (add_rms_norm, {"delta": meta(3, 64)}, "delta must be torch.bfloat16; got torch.flo"),
}


@pytest.mark.parametrize("op, changes, text", WRONG.values(), ids=WRONG)
def test_wrong_arguments(op, changes, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        refusal(op, **changes)


def test_what_another_implementation_has_to_take():
    assert refusal(rms_norm, x=meta(3, 64)) == "takes x in torch.bfloat16, got torch.float32"
    weight = meta(64)
    assert refusal(rms_norm, weight=weight) == "takes weight in torch.bfloat16, got torch.float32"
    rows = [meta(3, size, dtype=torch.bfloat16) for size in (100, 8200)]
    for x in rows:
        said = refusal(rms_norm, x=x, weight=x[0])
        assert said == f"takes rows of a multiple of 8 up to 8192, got {x.shape[1]}"
    assert refusal(sample, logits=meta(3, 800_000, dtype=torch.bfloat16)) is None
    said = refusal(sample, logits=meta(3, 800_000))
    assert said == "takes up to 436224 tokens in torch.float32, got 800000"
    assert sample.kernels[0].rejects(torch.zeros(3, 70), settings(3, CPU)) == (
        "kernels need a Hopper GPU, this is cpu"
    )


def test_the_excuse_for_a_differing_token_excuses_no_other_one():
    logits, rows = draw_logits("model", 10, 1000), mixed(10, CPU)
    for row in range(1, 10):
        token = int(sample.reference(logits[row : row + 1], row_of(rows, row))[0])
        assert is_near_a_boundary(logits, rows, row, token)
        others = [t for t in range(0, 1000, 7) if t != token]
        assert not any(is_near_a_boundary(logits, rows, row, other) for other in others), row
