"""Which calls the kernels of the shortlist take, and how they cut them. Needs no GPU."""

from dataclasses import replace

import pytest
import torch

from haast.bench.small_cases import settings
from haast.ops import shadow_of, shortlist
from haast.ops.shortlist import cuda_scan

META = torch.device("meta")


def call(num_tokens=2, k=128, num_rows=40, dtype=torch.bfloat16):
    x = torch.empty(num_tokens, k, dtype=dtype, device=META)
    weight = torch.empty(num_rows, k, dtype=dtype, device=META)
    return x, weight, shadow_of(weight), settings(num_tokens, META)


def test_who_serves_a_call():
    reasons = {
        "takes up to 16 tokens, got 17": call(17),
        "takes torch.bfloat16, got torch.float32": call(dtype=torch.float32),
        "takes rows of a multiple of 64, got 96": call(k=96),
        "16 rows of 8192 do not fit into shared memory": call(16, 8192),
    }
    for reason, arguments in reasons.items():
        assert shortlist.table(*arguments)[0].reason == reason
    for num_tokens, size in ((1, "m8"), (8, "m8"), (9, "m16"), (16, "m16")):
        first = shortlist.table(*call(num_tokens, 2880))[0]
        assert first.runs and first.symbols == (
            f"shortlist_scan_{size}",
            f"shortlist_choose_{size}",
        )


def test_what_breaks_the_contract():
    x, weight, shadow, sampling = call()
    other = shadow_of(weight[:30])
    wrong = {
        r"shadow.codes must have shape \[40, 128\]; got \[30, 128\]": (x, weight, other, sampling),
        r"weight must have shape \['\*', 128\]; got \[40, 64\]": (
            x, weight[:, :64].contiguous(), shadow, sampling,
        ),
        r"temperature must have shape \[2\]; got \[3\]": (x, weight, shadow, settings(3, META)),
        "top_k must be torch.int32; got torch.float32": (
            x, weight, shadow, replace(sampling, top_k=sampling.top_p),
        ),
        "bounds is on cpu, but x is on meta": (
            x, weight, replace(shadow, bounds=torch.empty(40, 2)), sampling,
        ),
    }  # fmt: skip
    for reason, arguments in wrong.items():
        with pytest.raises(ValueError, match=f"^{reason}$"):
            shortlist.choose(*arguments)


@pytest.mark.parametrize("num_tokens", [1, 2, 8, 9, 16])
@pytest.mark.parametrize("k", [64, 128, 704, 2880, 4096, 5056])
def test_every_row_comes_in_pieces_that_fit(num_tokens, k):
    piece, stages = cuda_scan._tiling(num_tokens, k)
    assert piece % 64 == 0 and 0 < piece <= k and stages == 3
    pieces = -(-k // piece)
    assert pieces * piece - k < pieces * 64
    shared = cuda_scan._scan_bytes(num_tokens, k, piece, stages)
    assert shared <= cuda_scan._MAX_SHARED or cuda_scan._rejects(*call(num_tokens, k))
    assert shared <= cuda_scan._MAX_SHARED or k > 2880


@pytest.mark.parametrize("num_rows", [1, 512, 67_584, 67_585, 201_088])
def test_every_row_has_a_place_in_its_list(num_rows):
    ctas, threads = 132, cuda_scan._CHOICE_THREADS
    most = max(len(range(cta * threads, num_rows, ctas * threads)) for cta in range(ctas))
    assert cuda_scan._list_rows(num_rows, ctas) == most * threads
