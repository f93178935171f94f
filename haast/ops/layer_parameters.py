"""The numbers of one layer, by role. Every tensor as the ops want it."""

from dataclasses import dataclass

from torch import Tensor

from haast.ops.moe import ExpertWeights


@dataclass(frozen=True, eq=False)
class LayerParameters:
    """One layer. Dense tensors bf16 (fp32 in tests); letters as in ARCHITECTURE.md."""

    attn_norm: Tensor
    """[H]"""
    qkv_weight: Tensor
    """[(Hq + 2 Hkv) D, H], rows q, k, v"""
    qkv_bias: Tensor
    """[(Hq + 2 Hkv) D]"""
    sinks: Tensor
    """[Hq]"""
    out_weight: Tensor
    """[H, Hq D]"""
    out_bias: Tensor
    """[H]"""
    mlp_norm: Tensor
    """[H]"""
    router_weight: Tensor
    """[E, H]"""
    router_bias: Tensor
    """[E]"""
    up_weight: ExpertWeights
    """[E, 2I, H], even rows gate, odd rows up"""
    up_bias: Tensor
    """[E, 2I]"""
    down_weight: ExpertWeights
    """[E, H, I]"""
    down_bias: Tensor
    """[E, H]"""
