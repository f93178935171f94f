"""Random weights with the statistics of a sane network: routing near uniform, logits finite.

The bytes are as many as in the real model and as incompressible, so that speed and memory can be
measured without the published weights.
"""

import math
from hashlib import blake2b

import torch
from torch import Tensor

from haast.config import Encoding, ModelConfig
from haast.model.layouts import EXPERT_ROLES, role_axes
from haast.model.parameters import EXPERT_LAYOUTS, Parameters
from haast.model.shares import part_of
from haast.model.weights import assemble
from haast.mxfp4 import GROUP, Mxfp4Weight, dequantize
from haast.ops import ExpertWeights
from haast.parallel.share import Share

CHUNK = 1 << 24
"""Elements drawn in fp32 at a time"""
BIAS_STD = 0.02
NORM_STD = 0.1
OUT_GAIN = 0.3
EXPERT_GAINS = {"up_weight": 1.5, "down_weight": 0.75}
# Uniform random E2M1 codes have the root mean square 2.93; three neighbouring powers of two, each
# as likely, have 1.32 times the middle one.
_CODES_RMS = math.sqrt((0.25 + 1 + 2.25 + 4 + 9 + 16 + 36) / 8)
_SCALES_RMS = math.sqrt((0.25 + 1 + 4) / 3)


def random_parameters(
    config: ModelConfig,
    encoding: Encoding,
    device: torch.device,
    seed: int = 0,
    *,
    is_swizzled: bool = False,
    share: Share | None = None,
) -> Parameters:
    """Parameters of a network that was never trained, made on the device itself.

    The same seed gives the same weights in both encodings, and the same as a checkpoint written
    by `make_checkpoint` from that seed on the same kind of device.

    is_swizzled  hold MXFP4 experts in the order that kernels read
    share        what to keep of them, of `config`; None = everything
    """
    kept = share or Share(config, size=1, rank=0)

    def make(role: str, layer: int | None) -> ExpertWeights:
        weight = part_of(random_weight(config, role, layer, seed, device), role, kept)
        if isinstance(weight, Tensor):
            return weight
        if encoding == "bfloat16":
            return dequantize_experts(weight)
        return weight.swizzled(EXPERT_LAYOUTS[role]) if is_swizzled else weight

    return assemble(config.num_layers, make)


def random_weight(
    config: ModelConfig, role: str, layer: int | None, seed: int, device: torch.device
) -> Mxfp4Weight | Tensor:
    """One parameter; it depends on its role, layer, shape and seed, not on what was made before.

    Expert matrices are MXFP4, everything else bf16. The CPU and a GPU draw different numbers.
    """
    shape = tuple(axis.size for axis in role_axes(config)[role])
    generator = torch.Generator(device)
    key = blake2b(f"{seed} {layer} {role}".encode(), digest_size=8).digest()
    generator.manual_seed(int.from_bytes(key, "little", signed=True))
    if role in EXPERT_ROLES:
        return _random_mxfp4(shape, EXPERT_GAINS[role], generator)
    mean, std = _statistics(role, shape)
    return _normal(shape, mean, std, generator)


def dequantize_experts(weight: Mxfp4Weight) -> Tensor:
    """[E, N, K] MXFP4 -> bf16, one expert at a time to bound the memory in use."""
    out = torch.empty(weight.shape, dtype=torch.bfloat16, device=weight.values.device)
    for expert, matrix in enumerate(out):
        matrix.copy_(dequantize(weight.values[expert], weight.scales[expert]))
    return out


def _statistics(role: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation; matrices keep the size of what they are applied to."""
    keep = shape[-1] ** -0.5
    return {
        "attn_norm": (1.0, NORM_STD),
        "mlp_norm": (1.0, NORM_STD),
        "norm": (1.0, NORM_STD),
        "qkv_weight": (0.0, keep),
        "router_weight": (0.0, keep),
        "lm_head": (0.0, keep),
        "out_weight": (0.0, OUT_GAIN * keep),
        "embedding": (0.0, 1.0),
        "sinks": (0.0, 1.0),
    }.get(role, (0.0, BIAS_STD))


def _normal(shape: tuple[int, ...], mean: float, std: float, generator: torch.Generator) -> Tensor:
    out = torch.empty(shape, dtype=torch.bfloat16, device=generator.device)
    for part in torch.split(out.view(-1), CHUNK):
        drawn = torch.randn(len(part), generator=generator, device=generator.device)
        part.copy_(drawn.mul_(std).add_(mean))
    return out


def _random_mxfp4(shape: tuple[int, ...], gain: float, generator: torch.Generator) -> Mxfp4Weight:
    """Uniform random codes [..., N, K] whose standard deviation is about gain / sqrt(K)."""
    *rows, k = shape
    middle = 127 + round(math.log2(gain * k**-0.5 / (_CODES_RMS * _SCALES_RMS)))
    device = generator.device
    words = torch.empty((*rows, k // 16), dtype=torch.int64, device=device)
    words.random_(torch.iinfo(torch.int64).min, None, generator=generator)
    scales = torch.empty((*rows, k // GROUP), dtype=torch.uint8, device=device)
    scales.random_(middle - 1, middle + 2, generator=generator)
    return Mxfp4Weight(values=words.view(torch.uint8), scales=scales)
