"""OpenAI's triton_kernels as a rival: the same layer through its matmul_ogs.

Its interface is that of the copy which vLLM 0.25.1 carries; nothing of it is part of haast.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from haast.bench.machine import BenchError
from haast.mxfp4 import Mxfp4Weight

NAME = "triton_kernels"
NUM_WARPS = 8
SWIGLU_ALPHA = 1.702


def check_rival() -> None:
    """Raises BenchError if triton_kernels cannot be imported; sets what vLLM sets on Hopper."""
    flags = _module("matmul_ogs_details.opt_flags")
    flags.update_opt_flags_constraints({"split_k": 1})


def rival_route(logits: Tensor, num_active: int) -> Any:
    """Its routing data, gather and scatter indices."""
    return _module("routing").routing(logits, num_active)


@dataclass(frozen=True)
class RivalLayer:
    """A layer's expert weights in its layout, without bias as a vector of zeros."""

    up: Any
    down: Any
    limit: float

    @classmethod
    def of(cls, up: Mxfp4Weight, down: Mxfp4Weight, limit: float) -> "RivalLayer":
        return cls(_weight(up), _weight(down), limit)

    def run_up(self, x: Tensor, routed: Any) -> Tensor:
        """x [T, H] -> [R, I]: gather, matmul and SwiGLU in one kernel."""
        ogs, swiglu = _module("matmul_ogs"), _module("swiglu")
        data, gather, _ = routed
        weight, bias, precision = self.up
        specs = ogs.FnSpecs("swiglu", swiglu.swiglu_fn, ("alpha", "limit"))
        out: Tensor = ogs.matmul_ogs(
            x,
            weight,
            bias,
            data,
            gather_indx=gather,
            precision_config=precision,
            fused_activation=ogs.FusedActivation(specs, (SWIGLU_ALPHA, self.limit), 2),
        )
        return out

    def run_down(self, h: Tensor, routed: Any) -> Tensor:
        """h [R, I] -> [T, H]: matmul and the weighted sum over a token's experts."""
        data, _, scatter = routed
        weight, bias, precision = self.down
        out: Tensor = _module("matmul_ogs").matmul_ogs(
            h,
            weight,
            bias,
            data,
            scatter_indx=scatter,
            precision_config=precision,
            gammas=data.gate_scal,
        )
        return out


def _weight(weight: Mxfp4Weight) -> tuple[Any, Tensor, Any]:
    """Its tensor, a bias of zeros and its precision settings, contraction axis first."""
    tensor, layout = _module("tensor"), _module("tensor_details.layout")
    ogs, numerics = _module("matmul_ogs"), _module("numerics")
    values_layout, values_options = layout.make_default_matmul_mxfp4_w_layout(mx_axis=1)
    scales_layout, scales_options = layout.make_default_matmul_mxfp4_w_scale_layout(
        mx_axis=1, num_warps=NUM_WARPS
    )
    wrapped = tensor.wrap_torch_tensor(weight.values.transpose(-2, -1), dtype=tensor.FP4)
    values = tensor.convert_layout(wrapped, values_layout, **values_options)
    wrapped = tensor.wrap_torch_tensor(weight.scales.transpose(-2, -1))
    scales = tensor.convert_layout(wrapped, scales_layout, **scales_options)
    flex = ogs.FlexCtx(rhs_data=numerics.InFlexData())
    num_experts, n, _ = weight.shape
    bias = torch.zeros(num_experts, n, device=weight.values.device)
    return values, bias, ogs.PrecisionConfig(weight_scale=scales, flex_ctx=flex)


def _module(name: str) -> Any:
    try:
        return import_module(f"{NAME}.{name}")
    except ModuleNotFoundError as error:
        raise BenchError(
            f"{NAME} cannot be imported ({error}); put the folder that holds it on PYTHONPATH, "
            "for example third_party of vLLM 0.25.1"
        ) from None
