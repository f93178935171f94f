"""The mixture of experts: route, moe_up, moe_down."""

from dataclasses import dataclass

import torch
from torch import Tensor

from haast.mxfp4 import Mxfp4Weight
from haast.ops.dispatch import Op

SWIGLU_ALPHA = 1.702
ExpertWeights = Mxfp4Weight | Tensor


@dataclass(frozen=True)
class Routing:
    """Which experts each token goes to, and the ragged order that groups rows by expert.

    Three tokens, A = 2, E = 4, expert_ids [[2, 0], [2, 3], [0, 2]]: routed row i is slot
    scatter_idx[i] = token * A + choice, sorted by expert and then by token:
    expert_offs [0, 2, 2, 5, 6], scatter_idx [1, 4, 0, 2, 5, 3], gather_idx [0, 2, 0, 1, 2, 1].
    """

    expert_ids: Tensor
    """[T, A] int64"""
    expert_weights: Tensor
    """[T, A] fp32, each row sums to 1"""
    expert_offs: Tensor
    """[E + 1] int32, prefix sum of rows per expert"""
    gather_idx: Tensor
    """[R] int64, source token of each routed row"""
    scatter_idx: Tensor
    """[R] int64, token * A + choice of each routed row"""


def route_reference(logits: Tensor, num_active: int) -> Routing:
    """Top experts of each token and the softmax over their logits alone.

    logits      [T, E] bf16 or fp32
    num_active  A, experts per token
    returns     Routing with R = T * A rows; equal logits go to the lower expert first
    Source: openai/gpt-oss gpt_oss/torch/model.py, MLPBlock.
    """
    ordered, order = logits.float().sort(dim=-1, descending=True, stable=True)
    expert_ids = order[:, :num_active]
    flat = expert_ids.flatten()
    scatter_idx = flat.argsort(stable=True)
    sizes = torch.bincount(flat, minlength=logits.shape[1])
    return Routing(
        expert_ids=expert_ids,
        expert_weights=ordered[:, :num_active].softmax(-1),
        expert_offs=torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).int(),
        gather_idx=scatter_idx // num_active,
        scatter_idx=scatter_idx,
    )


def moe_up_reference(
    x: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing, limit: float
) -> Tensor:
    """Routed rows times their expert's gate-and-up weights, then SwiGLU.

    x        [T, H] bf16 or fp32
    weight   [E, 2I, H], Mxfp4Weight or dense
    bias     [E, 2I]
    routing  Routing; its expert_offs are read on the host (a device sync)
    limit    clamp of the gate from above and of the up part on both sides
    returns  [R, I], dtype of x; fp32 throughout, rounded once
    g, u = z[..., ::2], z[..., 1::2];  min(g, limit) * sigmoid(1.702 min(g, limit)) * (clamp(u) + 1)
    Source: openai/gpt-oss gpt_oss/torch/model.py, swiglu and MLPBlock.
    """
    rows = x[routing.gather_idx]
    out = torch.empty(len(rows), bias.shape[1] // 2, dtype=x.dtype, device=x.device)
    for expert, part in _expert_slices(routing):
        z = _expert_linear(rows[part], weight, bias, expert)
        out[part] = swiglu(z, limit).to(x.dtype)
    return out


def moe_down_reference(h: Tensor, weight: ExpertWeights, bias: Tensor, routing: Routing) -> Tensor:
    """Routed rows times their expert's down weights, summed over a token's experts.

    h        [R, I] bf16 or fp32, in routed order
    weight   [E, H, I], Mxfp4Weight or dense
    bias     [E, H]
    routing  Routing; its expert_offs are read on the host (a device sync)
    returns  [T, H], dtype of h: sum of expert_weights * (h w^T + bias) in the order of a token's
             choices; fp32 throughout, rounded once
    """
    num_tokens, num_active = routing.expert_ids.shape
    slots = torch.empty(len(h), bias.shape[1], dtype=torch.float32, device=h.device)
    for expert, part in _expert_slices(routing):
        slots[routing.scatter_idx[part]] = _expert_linear(h[part], weight, bias, expert)
    choices = slots.view(num_tokens, num_active, bias.shape[1])
    return (choices * routing.expert_weights[..., None]).sum(1).to(h.dtype)


def swiglu(z: Tensor, limit: float) -> Tensor:
    """Interleaved gate and up columns [..., 2I] -> [..., I]; see `moe_up_reference`."""
    gate = z[..., ::2].clamp(max=limit)
    up = z[..., 1::2].clamp(-limit, limit)
    return gate * torch.sigmoid(SWIGLU_ALPHA * gate) * (up + 1)


def _expert_slices(routing: Routing) -> list[tuple[int, slice]]:
    """Experts that have rows, and where those are."""
    offs = routing.expert_offs.tolist()
    return [(e, slice(offs[e], offs[e + 1])) for e in range(len(offs) - 1) if offs[e] < offs[e + 1]]


def _expert_linear(x: Tensor, weight: ExpertWeights, bias: Tensor, expert: int) -> Tensor:
    """Rows times one expert's dequantised weight, fp32."""
    matrix = weight[expert]
    wide = matrix.dequantize(torch.float32) if isinstance(matrix, Mxfp4Weight) else matrix.float()
    return torch.addmm(bias[expert].float(), x.float(), wide.T)


route = Op("route", route_reference)
moe_up = Op("moe_up", moe_up_reference)
moe_down = Op("moe_down", moe_down_reference)
