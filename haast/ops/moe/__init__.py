"""The mixture of experts: contracts in reference.py, kernels in preference order here."""

from haast.ops.dispatch import Op
from haast.ops.moe import cuda_mma, cuda_route, cuda_wgmma, reference
from haast.ops.moe.reference import ExpertWeights, swiglu
from haast.ops.moe.routing import Routing

route = Op("route", reference.route, (cuda_route.SMALL, cuda_route.LARGE))
moe_up = Op("moe_up", reference.moe_up, (cuda_mma.UP, cuda_wgmma.UP))
moe_down = Op("moe_down", reference.moe_down, (cuda_mma.DOWN, cuda_wgmma.DOWN))
grouped_matmul = Op("grouped_matmul", reference.grouped_matmul, (cuda_wgmma.GROUPED,))

__all__ = [
    "ExpertWeights",
    "Routing",
    "grouped_matmul",
    "moe_down",
    "moe_up",
    "route",
    "swiglu",
]
