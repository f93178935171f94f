"""Few tokens: weights streamed once, each by one warp. See cuda/linear.cu."""

from torch import Tensor

from haast.cuda.launcher import launch, multiprocessors
from haast.ops.dispatch import Kernel
from haast.ops.hopper import why_no_kernels
from haast.ops.linear.check import why_rejected

MAX_TOKENS = 16
_FEW = 8
"""Tokens up to which one half of the mma's rows will do"""
_WARPS = 8
_ROWS = 8
"""of the weight at a time, one a column of the mma"""
_ALIGNMENT = 128
"""Bytes of a weight row that are multiplied at a time"""
_STAGES = 3
_RING_BYTES = 14 * 1024
"""of a warp, at least"""
_USUAL_SHARED = 168 * 1024
"""Rings may be larger if tokens leave room below this; the kernel before has the rest"""
_MAX_SHARED = 227 * 1024
_LEAST_RINGS = 64 * 1024
"""What tokens must leave: a stage or more of every warp's ring"""


def _rejects(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    if (reason := why_rejected(x, weight, bias)) is not None:
        return reason
    if len(x) > MAX_TOKENS:
        return f"takes up to {MAX_TOKENS} tokens, got {len(x)}"
    if len(x) * _pitch(2 * x.shape[1]) > _MAX_SHARED - _LEAST_RINGS:
        return f"{len(x)} rows of {x.shape[1]} do not fit into shared memory"
    return why_no_kernels(x.device)


def _pitch(nbytes: int) -> int:
    """Of rows in shared memory, as linear.cu has them."""
    return nbytes + (0 if nbytes % 128 else 64)


def _shared_bytes(num_tokens: int, row_bytes: int, piece: int, rows: int, stages: int) -> int:
    ring = stages * (rows * _pitch(piece) + 8)
    return num_tokens * _pitch(row_bytes) + _WARPS * ring + 8


def _tiling(num_tokens: int, row_bytes: int, num_rows: int, warps: int) -> tuple[int, int, int]:
    """(bytes of a weight row at a time, rows at a time, stages of a ring): all rows of a warp at
    once where they are few, in pieces of one size that fill the ring."""
    rows = min(_ROWS, -(-num_rows // warps))
    room = _USUAL_SHARED - num_tokens * _pitch(row_bytes)
    ring = max(_RING_BYTES, room // _WARPS)
    most = max(1, ring // (_STAGES * rows * _ALIGNMENT)) * _ALIGNMENT
    pieces = -(-row_bytes // most)
    piece = -(-row_bytes // (pieces * _ALIGNMENT)) * _ALIGNMENT
    left = _MAX_SHARED - _shared_bytes(num_tokens, row_bytes, piece, rows, 0)
    return piece, rows, min(_STAGES, left // (_WARPS * (rows * _pitch(piece) + 8)))


def _symbols(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[str, ...]:
    if not len(x) or not len(weight):
        return ()
    return ("linear_mma_m8" if len(x) <= _FEW else "linear_mma_m16",)


def _run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    (num_tokens, k), num_rows = x.shape, len(weight)
    out = x.new_empty(num_tokens, num_rows)
    for symbol in _symbols(x, weight, bias):
        ctas = multiprocessors(x.device)
        tiling = _tiling(num_tokens, 2 * k, num_rows, ctas * _WARPS)
        launch(
            "linear",
            symbol,
            grid=ctas,
            block=32 * _WARPS,
            shared_bytes=_shared_bytes(num_tokens, 2 * k, *tiling),
            args=(x, weight, bias, out, num_tokens, num_rows, 2 * k, *tiling),
        )
    return out


MMA = Kernel(
    "cuda_mma",
    _run,
    _rejects,
    _symbols,
    because="qkv of gpt-oss-20b at 1 and 8 tokens 10.7 and 11.5 us, cuBLAS 12.6; router 3.4 and "
    "3.8, cuBLAS 5.5 (H100)",
)
