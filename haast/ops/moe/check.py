"""What the kernels ask of their arguments, said before anything is launched."""

import torch
from torch import Tensor

from haast.mxfp4 import SwizzledWeight
from haast.ops.check import FLOATS, check_devices, check_tensor
from haast.ops.moe.reference import ExpertWeights
from haast.ops.moe.routing import Routing

MAX_EXPERTS = 256
MAX_ACTIVE = 32
MAX_RESULT = 2**32
"""elements of moe_down's result"""


def check_weight(weight: ExpertWeights, k: int, is_paired: bool) -> SwizzledWeight:
    """The weight, known to be [E, N, k] in the right row order.

    Raises ValueError for another form, K or row order.
    """
    if not isinstance(weight, SwizzledWeight):
        raise ValueError(
            f"weight must be a SwizzledWeight; got {type(weight).__name__}: "
            "prepare it with Mxfp4Weight.swizzled"
        )
    if weight.layout.paired != is_paired:
        raise ValueError(
            f"weight must be swizzled with paired={is_paired}; it has paired={weight.layout.paired}"
        )
    if weight.k != k:
        raise ValueError(f"weight has K = {weight.k}, but the rows have {k}")
    storage = weight.layout.storage_shape((*weight.shape,))
    check_tensor("weight.storage", weight.storage, torch.uint8, *storage)
    if weight.storage.ndim != 4 or len(weight.storage) > MAX_EXPERTS or 0 in weight.shape:
        raise ValueError(
            f"weight must be [E, N, K], none of them 0, with at most {MAX_EXPERTS} experts; "
            f"got {list(weight.shape)}"
        )
    return weight


def check_routing(routing: Routing, num_experts: int) -> None:
    """Raises ValueError for a field of another dtype or shape."""
    check_tensor("expert_ids", routing.expert_ids, torch.int32, None, None)
    num_tokens, num_active = routing.expert_ids.shape
    if num_active < 1:
        raise ValueError("expert_ids must have at least one expert a token; got [T, 0]")
    num_rows = num_tokens * num_active
    check_tensor("expert_weights", routing.expert_weights, torch.float32, num_tokens, num_active)
    check_tensor("expert_offs", routing.expert_offs, torch.int32, num_experts + 1)
    check_tensor("gather_idx", routing.gather_idx, torch.int32, num_rows)
    check_tensor("scatter_idx", routing.scatter_idx, torch.int32, num_rows)
    check_devices(
        expert_ids=routing.expert_ids,
        expert_weights=routing.expert_weights,
        expert_offs=routing.expert_offs,
        gather_idx=routing.gather_idx,
        scatter_idx=routing.scatter_idx,
    )


def check_up(x: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing) -> SwizzledWeight:
    """Arguments of moe_up; raises ValueError."""
    check_tensor("x", x, torch.bfloat16, len(routing.expert_ids), None)
    known = check_weight(weight, x.shape[1], is_paired=True)
    check_tensor("bias", bias, torch.bfloat16, *known.shape[:2])
    check_routing(routing, known.shape[0])
    check_devices(x=x, weight=known.storage, bias=bias, routing=routing.expert_ids)
    return known


def check_down(h: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing) -> SwizzledWeight:
    """Arguments of moe_down; raises ValueError."""
    check_tensor("h", h, torch.bfloat16, routing.expert_ids.numel(), None)
    known = check_weight(weight, h.shape[1], is_paired=False)
    check_tensor("bias", bias, torch.bfloat16, *known.shape[:2])
    check_routing(routing, known.shape[0])
    check_devices(h=h, weight=known.storage, bias=bias, routing=routing.expert_ids)
    if len(routing.expert_ids) * known.shape[1] > MAX_RESULT:
        raise ValueError(f"h has too many tokens, {len(routing.expert_ids)}: T * H is over 2^32")
    return known


def check_grouped(
    x: Tensor, weight: ExpertWeights, expert_offs: Tensor, out_dtype: torch.dtype
) -> SwizzledWeight:
    """Arguments of grouped_matmul; raises ValueError."""
    check_tensor("x", x, torch.bfloat16, None, None)
    known = check_weight(weight, x.shape[1], is_paired=False)
    check_tensor("expert_offs", expert_offs, torch.int32, known.shape[0] + 1)
    check_devices(x=x, weight=known.storage, expert_offs=expert_offs)
    if out_dtype not in FLOATS:
        raise ValueError(f"out_dtype must be torch.bfloat16 or torch.float32; got {out_dtype}")
    return known


def check_route(logits: Tensor, num_active: int) -> None:
    """Arguments of route; raises ValueError."""
    check_tensor("logits", logits, FLOATS, None, None)
    num_experts = logits.shape[1]
    if num_experts > MAX_EXPERTS:
        raise ValueError(f"logits have {num_experts} experts; at most {MAX_EXPERTS} are supported")
    if not 1 <= num_active <= min(num_experts, MAX_ACTIVE):
        raise ValueError(f"num_active must be 1..{min(num_experts, MAX_ACTIVE)}; got {num_active}")
