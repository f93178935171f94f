"""Attention as CUDA kernels: those for one query a request beside those for many, or alone."""

import torch
from torch import Tensor

from haast.ops.attention import cuda_decode, cuda_prefill
from haast.ops.attention.check import check_attention, why_rejected
from haast.ops.attention.meta import StepMeta
from haast.ops.dispatch import Kernel


def _rejects(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sinks: Tensor, meta: StepMeta, window: int | None
) -> str | None:
    check_attention(q, k_cache, v_cache, sinks, meta, window)
    return why_rejected(q, k_cache, sinks, meta)


def _symbols(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sinks: Tensor, meta: StepMeta, window: int | None
) -> tuple[str, ...]:
    decodes = cuda_decode.symbols(meta, window, k_cache)
    return decodes + cuda_prefill.symbols(meta, meta.num_decodes, k_cache)


def _symbols_prefill(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sinks: Tensor, meta: StepMeta, window: int | None
) -> tuple[str, ...]:
    return cuda_prefill.symbols(meta, 0, k_cache)


def _run(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sinks: Tensor, meta: StepMeta, window: int | None
) -> Tensor:
    out = torch.empty_like(q)
    cuda_decode.decode(q, k_cache, v_cache, sinks, meta, window, out)
    first = meta.num_decodes
    cuda_prefill.prefill(q, k_cache, v_cache, sinks, meta, window, first=first, out=out)
    return out


def _run_prefill(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sinks: Tensor, meta: StepMeta, window: int | None
) -> Tensor:
    out = torch.empty_like(q)
    cuda_prefill.prefill(q, k_cache, v_cache, sinks, meta, window, first=0, out=out)
    return out


_BECAUSE = "94 % of the floor at 64 x 4096 keys, 522 TFLOP/s at a prompt of 8192 tokens; LOG.md"
CUDA = Kernel(
    "cuda",
    _run,
    _rejects,
    _symbols,
    because=_BECAUSE,
)
CUDA_PREFILL = Kernel(
    "cuda_prefill",
    _run_prefill,
    _rejects,
    _symbols_prefill,
    because="when pinned: bits of a token do not depend on batch or chunks",
    is_default=False,
)
