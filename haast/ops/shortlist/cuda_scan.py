"""Codes streamed once, then the rows that may matter, however many those are. See
cuda/shortlist.cu."""

import torch
from torch import Tensor

from haast.cuda.launcher import launch, multiprocessors
from haast.ops.check import FLOATS, check_devices, check_tensor
from haast.ops.dispatch import Kernel
from haast.ops.hopper import why_no_kernels
from haast.ops.sample.reference import Sampling
from haast.ops.shortlist.shadow import ShadowHead

MAX_TOKENS = 16
MAX_GROUPS = 256
"""CTAs that look at the codes; each tells one lower end a token"""
_FEW = 8
"""Tokens up to which one half of the mma's rows will do"""
_WARPS = 8
_ROWS = 8
"""of the weight at a time, one a column of the mma"""
_STEP = 64
"""Codes of a row that are multiplied at a time"""
_STAGES = 3
_RING_BYTES = 14 * 1024
"""of a warp, at least"""
_USUAL_SHARED = 168 * 1024
"""Rings may be larger if tokens leave room below this; the kernel before has the rest"""
_MAX_SHARED = 226 * 1024
_CHOICE_THREADS = 512


def _rejects(x: Tensor, weight: Tensor, shadow: ShadowHead, sampling: Sampling) -> str | None:
    check_tensor("x", x, FLOATS, None, None)
    (num_tokens, k), num_rows = x.shape, len(weight)
    check_tensor("weight", weight, x.dtype, None, k)
    check_tensor("shadow.codes", shadow.codes, torch.int8, num_rows, k)
    check_tensor("shadow.bounds", shadow.bounds, torch.float32, num_rows, 2)
    check_tensor("shadow.num_computed", shadow.num_computed, torch.int64, 1)
    settings = _settings(sampling)
    for name, value in settings.items():
        dtype = torch.int32 if name == "top_k" else torch.float32
        check_tensor(name, value, dtype, num_tokens, alignment=4)
    check_devices(x=x, weight=weight, codes=shadow.codes, bounds=shadow.bounds, **settings)
    if x.dtype != torch.bfloat16:
        return f"takes torch.bfloat16, got {x.dtype}"
    if num_tokens > MAX_TOKENS:
        return f"takes up to {MAX_TOKENS} tokens, got {num_tokens}"
    if k % _STEP or not k:
        return f"takes rows of a multiple of {_STEP}, got {k}"
    if _scan_bytes(num_tokens, k, *_tiling(num_tokens, k)) > _MAX_SHARED:
        return f"{num_tokens} rows of {k} do not fit into shared memory"
    return why_no_kernels(x.device)


def _settings(sampling: Sampling) -> dict[str, Tensor]:
    names = ("temperature", "top_k", "top_p", "min_p")
    return {name: getattr(sampling, name) for name in names}


def _pitch(nbytes: int) -> int:
    """Of rows in shared memory, as shortlist.cu has them."""
    return nbytes + (0 if nbytes % 128 else 64)


def _scan_bytes(num_tokens: int, k: int, piece: int, stages: int) -> int:
    ring = stages * (_ROWS * _pitch(piece) + 8)
    return num_tokens * (2 * k + 16) + _WARPS * ring + 8


def _list_rows(num_rows: int, ctas: int) -> int:
    """Rows that a CTA may have to list."""
    return -(-num_rows // (ctas * _CHOICE_THREADS)) * _CHOICE_THREADS


def _tiling(num_tokens: int, k: int) -> tuple[int, int]:
    """(codes of a row at a time, stages of a ring): pieces of one size that fill the ring."""
    room = _USUAL_SHARED - num_tokens * (2 * k + 16)
    ring = max(_RING_BYTES, room // _WARPS)
    most = max(1, ring // (_STAGES * _ROWS * _STEP)) * _STEP
    pieces = -(-k // most)
    return -(-k // (pieces * _STEP)) * _STEP, _STAGES


def _symbols(x: Tensor, weight: Tensor, shadow: ShadowHead, sampling: Sampling) -> tuple[str, ...]:
    if not len(x) or not len(weight):
        return ()
    size = "m8" if len(x) <= _FEW else "m16"
    return f"shortlist_scan_{size}", f"shortlist_choose_{size}"


def _run(x: Tensor, weight: Tensor, shadow: ShadowHead, sampling: Sampling) -> Tensor:
    (num_tokens, k), num_rows = x.shape, len(weight)
    logits = torch.empty(num_tokens, num_rows, dtype=x.dtype, device=x.device)
    symbols = _symbols(x, weight, shadow, sampling)
    if not symbols:
        return logits
    ctas = min(multiprocessors(x.device), MAX_GROUPS)
    best = torch.empty(num_tokens, ctas, device=x.device)
    tiling = _tiling(num_tokens, k)
    launch(
        "shortlist",
        symbols[0],
        grid=ctas,
        block=32 * _WARPS,
        shared_bytes=_scan_bytes(num_tokens, k, *tiling),
        args=(
            *(x, shadow.codes, shadow.bounds, logits, best),
            *(num_tokens, num_rows, k, *tiling),
        ),
    )
    launch(
        "shortlist",
        symbols[1],
        grid=ctas,
        block=_CHOICE_THREADS,
        shared_bytes=num_tokens * _pitch(2 * k) + 4 * _list_rows(num_rows, ctas),
        args=(
            *(x, weight, best, *_settings(sampling).values(), logits, shadow.num_computed),
            *(num_tokens, num_rows, k, ctas),
        ),
    )
    return logits


SCAN = Kernel(
    "cuda_scan",
    _run,
    _rejects,
    _symbols,
    because="gpt-oss-20b's head at 1 and 8 tokens 228 and 213 us, whole 388 and 409 (H100)",
)
