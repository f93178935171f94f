"""route as CUDA kernels: one launch up to 256 tokens, two beyond. See cuda/route.cu."""

from functools import partial

import torch
from torch import Tensor

from haast.cuda.launcher import launch
from haast.ops.dispatch import Kernel
from haast.ops.hopper import why_no_kernels
from haast.ops.moe.check import check_route
from haast.ops.moe.routing import Routing

MAX_TOKENS = 256
"""Of one CTA for all"""
_BLOCK_TOKENS = 64
"""Of each CTA where there are several"""
_THREADS = 1024


def _suffix(logits: Tensor) -> str:
    return "bf16" if logits.dtype == torch.bfloat16 else "fp32"


def _symbols(logits: Tensor, num_active: int) -> tuple[str, ...]:
    if len(logits) == 0:
        return ()
    if len(logits) <= MAX_TOKENS:
        return (f"route_small_{_suffix(logits)}",)
    return (f"route_choose_{_suffix(logits)}", "route_place")


def _rejects_small(logits: Tensor, num_active: int) -> str | None:
    check_route(logits, num_active)
    if len(logits) > MAX_TOKENS:
        return f"takes at most {MAX_TOKENS} tokens, got {len(logits)}"
    return why_no_kernels(logits.device)


def _rejects_large(logits: Tensor, num_active: int) -> str | None:
    check_route(logits, num_active)
    return why_no_kernels(logits.device)


def _run(logits: Tensor, num_active: int) -> Routing:
    num_tokens, num_experts = logits.shape
    ints = partial(torch.empty, dtype=torch.int32, device=logits.device)
    num_rows = num_tokens * num_active
    routing = Routing(
        expert_ids=ints(num_tokens, num_active),
        expert_weights=torch.empty(num_tokens, num_active, device=logits.device),
        expert_offs=ints(num_experts + 1),
        gather_idx=ints(num_rows),
        scatter_idx=ints(num_rows),
    )
    if num_tokens == 0:
        routing.expert_offs.zero_()
        return routing
    first, *second = _symbols(logits, num_active)
    ctas = -(-num_tokens // _BLOCK_TOKENS)
    sizes = (num_tokens, num_experts, num_active)
    places = (routing.expert_offs, routing.gather_idx, routing.scatter_idx)
    chosen = (logits, routing.expert_ids, routing.expert_weights, *places, *sizes)
    if not second:
        launch("route", first, grid=1, block=_THREADS, shared_bytes=0, args=chosen)
        return routing
    counts = ints(ctas, num_experts)
    launch("route", first, grid=ctas, block=_THREADS, shared_bytes=0, args=(*chosen, counts))
    args = (routing.expert_ids, counts, *places, *sizes)
    launch("route", *second, grid=ctas, block=_THREADS, shared_bytes=0, args=args)
    return routing


def _small(logits: Tensor, num_active: int) -> Routing:
    return _run(logits, num_active)


def _large(logits: Tensor, num_active: int) -> Routing:
    return _run(logits, num_active)


SMALL = Kernel("cuda_small", _small, _rejects_small, _symbols, because="one launch, 2.3-6 us")
LARGE = Kernel("cuda_large", _large, _rejects_large, _symbols, because="two launches, 7.2-10.2 us")
