"""The mixture of experts in plain torch: the meaning of route, moe_up, moe_down, grouped_matmul."""

import torch
from torch import Tensor

from haast.mxfp4 import Mxfp4Weight, SwizzledWeight
from haast.ops.moe.routing import Routing

SWIGLU_ALPHA = 1.702
ExpertWeights = Mxfp4Weight | SwizzledWeight | Tensor


def route(logits: Tensor, num_active: int) -> Routing:
    """Top experts of each token and the softmax over their logits alone.

    logits      [T, E] bf16 or fp32
    num_active  A, experts per token
    returns     Routing with R = T * A rows; equal logits go to the lower expert first
    Source: openai/gpt-oss gpt_oss/torch/model.py, MLPBlock.
    Kernels raise ValueError for another dtype or shape, or A beyond 1..min(E, 32), E beyond 256.
    """
    ordered, order = logits.float().sort(dim=-1, descending=True, stable=True)
    expert_ids = order[:, :num_active].int()
    flat = expert_ids.flatten()
    scatter_idx = flat.argsort(stable=True).int()
    sizes = torch.bincount(flat, minlength=logits.shape[1])
    return Routing(
        expert_ids=expert_ids,
        expert_weights=ordered[:, :num_active].softmax(-1),
        expert_offs=torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).int(),
        gather_idx=scatter_idx // num_active,
        scatter_idx=scatter_idx,
    )


def moe_up(
    x: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing, limit: float
) -> Tensor:
    """Routed rows times their expert's gate-and-up weights, then SwiGLU.

    x        [T, H] bf16 (the reference takes fp32 too)
    weight   [E, 2I, H]: kernels read SwizzledWeight with paired rows, the reference any form
    bias     [E, 2I] bf16
    routing  Routing; the reference reads its expert_offs on the host (a device sync)
    limit    clamp of the gate from above and of the up part on both sides
    returns  [R, I], dtype of x; fp32 throughout, rounded once
    g, u = z[..., ::2], z[..., 1::2];  min(g, limit) * sigmoid(1.702 min(g, limit)) * (clamp(u) + 1)
    Source: openai/gpt-oss gpt_oss/torch/model.py, swiglu and MLPBlock.
    Kernels raise ValueError on shape, dtype, layout or device, LookupError if none accepts.
    """
    rows = x[routing.gather_idx]
    out = torch.empty(len(rows), bias.shape[1] // 2, dtype=x.dtype, device=x.device)
    for expert, part in _expert_slices(routing.expert_offs):
        z = _expert_linear(rows[part], weight, expert) + bias[expert].float()
        out[part] = swiglu(z, limit).to(x.dtype)
    return out


def moe_down(h: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing) -> Tensor:
    """Routed rows times their expert's down weights, summed over a token's experts.

    h        [R, I] bf16 (the reference takes fp32 too), in routed order
    weight   [E, H, I]: kernels read SwizzledWeight, the reference any form
    bias     [E, H] bf16
    routing  Routing; the reference reads its expert_offs on the host (a device sync)
    returns  [T, H], dtype of h: sum of expert_weights * (h w^T + bias) in the order of a token's
             choices; fp32 throughout, rounded once. Of many rows a kernel rounds the terms too
             before it adds them; openai/gpt-oss gpt_oss/torch/model.py rounds them as well
    Kernels read the routing while the kernel launched before them, which makes h, may still run:
    that one has to have waited for the routing before it lets them start.
    Kernels raise ValueError on shape, dtype, layout or device, LookupError if none accepts.
    """
    num_tokens, num_active = routing.expert_ids.shape
    slots = torch.empty(len(h), bias.shape[1], dtype=torch.float32, device=h.device)
    for expert, part in _expert_slices(routing.expert_offs):
        z = _expert_linear(h[part], weight, expert) + bias[expert].float()
        slots[routing.scatter_idx[part]] = z
    choices = slots.view(num_tokens, num_active, bias.shape[1])
    return (choices * routing.expert_weights[..., None]).sum(1).to(h.dtype)


def grouped_matmul(
    x: Tensor, weight: ExpertWeights, expert_offs: Tensor, out_dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """Rows, sorted by expert, times their expert's weights: the bare product.

    x            [R, K] bf16
    weight       [E, N, K]: kernels read SwizzledWeight, the reference any form
    expert_offs  [E + 1] int32, prefix sum of rows per expert; the reference reads it on the host
    out_dtype    bfloat16 or float32
    returns      [R, N] out_dtype; accumulated in fp32, rounded once
    Kernels raise ValueError on shape, dtype, layout or device, LookupError if none accepts.
    """
    out = torch.empty(len(x), weight.shape[-2], dtype=out_dtype, device=x.device)
    for expert, part in _expert_slices(expert_offs):
        out[part] = _expert_linear(x[part], weight, expert).to(out_dtype)
    return out


def swiglu(z: Tensor, limit: float) -> Tensor:
    """Interleaved gate and up columns [..., 2I] -> [..., I]; see `moe_up`."""
    gate = z[..., ::2].clamp(max=limit)
    up = z[..., 1::2].clamp(-limit, limit)
    return gate * torch.sigmoid(SWIGLU_ALPHA * gate) * (up + 1)


def _expert_slices(expert_offs: Tensor) -> list[tuple[int, slice]]:
    """Experts that have rows, and where those are."""
    offs = expert_offs.tolist()
    return [(e, slice(offs[e], offs[e + 1])) for e in range(len(offs) - 1) if offs[e] < offs[e + 1]]


def _expert_linear(x: Tensor, weight: ExpertWeights, expert: int) -> Tensor:
    """Rows times one expert's weight, dequantised where it is packed; fp32."""
    matrix = weight[expert]
    wide = matrix.float() if isinstance(matrix, Tensor) else matrix.dequantize(torch.float32)
    return x.float() @ wide.T
