"""The published layouts of gpt-oss weights as values: names, shapes and dtypes of every tensor.

A role is a field of LayerParameters or Parameters. Each layout says which stored tensors make up
a role; the shapes follow from the ModelConfig.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from haast.config import Encoding, ModelConfig
from haast.mxfp4 import GROUP

LayoutName = Literal["hf-mxfp4", "original", "hf-bf16"]
EXPERT_ROLES = ("up_weight", "down_weight")
OUTER_ROLES = ("embedding", "norm", "lm_head")
ITEM_SIZES = {"BF16": 2, "U8": 1}


class Axis(NamedTuple):
    """One axis of a tensor and what in config.json decides its size."""

    size: int
    key: str


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that a checkpoint must hold; dtype in safetensors' spelling."""

    name: str
    dtype: str
    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_SIZES[self.dtype]


@dataclass(frozen=True)
class Source:
    """The stored tensors of one role.

    Dense roles: tensors stacked by rows (one, or q, k and v). Expert roles: MXFP4 blocks
    [E, N, K/32, 16] and scales [E, N, K/32], or one BF16 tensor [E, K, N], contraction axis first.
    """

    role: str
    layer: int | None
    """None for the roles of Parameters"""
    tensors: tuple[TensorSpec, ...]

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for spec in self.tensors)


@dataclass(frozen=True)
class Layout:
    """One way of naming and cutting the same weights."""

    name: LayoutName
    encoding: Encoding
    layer_prefix: str
    layer_names: Mapping[str, tuple[str, ...]]
    outer_names: Mapping[str, str]

    def sources(self, config: ModelConfig) -> Iterator[Source]:
        """Every role of the network with the tensors it is made of, layer by layer."""
        axes = role_axes(config)
        for layer in range(config.num_layers):
            prefix = self.layer_prefix.format(layer)
            for role, suffixes in self.layer_names.items():
                names = [prefix + suffix for suffix in suffixes]
                yield Source(role, layer, self._specs(role, names, axes[role], config))
        for role, name in self.outer_names.items():
            yield Source(role, None, self._specs(role, [name], axes[role], config))

    def layer_of(self, name: str) -> int | None:
        """The layer that a tensor name belongs to, or None."""
        match = re.match(re.escape(self.layer_prefix).replace(r"\{\}", r"(\d+)"), name)
        return int(match[1]) if match else None

    def _specs(
        self, role: str, names: list[str], axes: tuple[Axis, ...], config: ModelConfig
    ) -> tuple[TensorSpec, ...]:
        if role not in EXPERT_ROLES:
            parts = [axes[0]] if len(names) == 1 else _qkv_axes(config)
            rows = zip(names, parts, strict=True)
            return tuple(TensorSpec(name, "BF16", (part, *axes[1:])) for name, part in rows)
        experts, n, k = axes
        if self.encoding == "bfloat16":
            return (TensorSpec(names[0], "BF16", (experts, k, n)),)
        groups = (experts, n, Axis(k.size // GROUP, k.key))
        blocks = TensorSpec(names[0], "U8", (*groups, Axis(GROUP // 2, k.key)))
        return blocks, TensorSpec(names[1], "U8", groups)


def role_axes(config: ModelConfig) -> dict[str, tuple[Axis, ...]]:
    """The axes of every role as Parameters holds it, contraction last."""
    hidden = Axis(config.hidden_size, "hidden_size")
    inner = Axis(config.intermediate_size, "intermediate_size")
    both = Axis(2 * config.intermediate_size, "intermediate_size")
    experts = Axis(config.num_experts, "num_local_experts")
    heads = Axis(config.num_heads, "num_attention_heads")
    vocab = Axis(config.vocab_size, "vocab_size")
    qkv = Axis(config.qkv_size, "num_attention_heads or head_dim")
    out = Axis(config.num_heads * config.head_dim, "num_attention_heads or head_dim")
    return {
        "attn_norm": (hidden,),
        "qkv_weight": (qkv, hidden),
        "qkv_bias": (qkv,),
        "sinks": (heads,),
        "out_weight": (hidden, out),
        "out_bias": (hidden,),
        "mlp_norm": (hidden,),
        "router_weight": (experts, hidden),
        "router_bias": (experts,),
        "up_weight": (experts, both, hidden),
        "up_bias": (experts, both),
        "down_weight": (experts, hidden, inner),
        "down_bias": (experts, hidden),
        "embedding": (vocab, hidden),
        "norm": (hidden,),
        "lm_head": (vocab, hidden),
    }


def _qkv_axes(config: ModelConfig) -> list[Axis]:
    query = Axis(config.num_heads * config.head_dim, "num_attention_heads or head_dim")
    key = Axis(config.num_kv_heads * config.head_dim, "num_key_value_heads or head_dim")
    return [query, key, key]


_HF_DENSE = {
    "attn_norm": ("input_layernorm.weight",),
    "qkv_weight": tuple(f"self_attn.{part}_proj.weight" for part in "qkv"),
    "qkv_bias": tuple(f"self_attn.{part}_proj.bias" for part in "qkv"),
    "sinks": ("self_attn.sinks",),
    "out_weight": ("self_attn.o_proj.weight",),
    "out_bias": ("self_attn.o_proj.bias",),
    "mlp_norm": ("post_attention_layernorm.weight",),
    "router_weight": ("mlp.router.weight",),
    "router_bias": ("mlp.router.bias",),
    "up_bias": ("mlp.experts.gate_up_proj_bias",),
    "down_bias": ("mlp.experts.down_proj_bias",),
}
_HF_OUTER = {
    "embedding": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "lm_head": "lm_head.weight",
}

HF_MXFP4 = Layout(
    name="hf-mxfp4",
    encoding="mxfp4",
    layer_prefix="model.layers.{}.",
    layer_names={
        **_HF_DENSE,
        "up_weight": ("mlp.experts.gate_up_proj_blocks", "mlp.experts.gate_up_proj_scales"),
        "down_weight": ("mlp.experts.down_proj_blocks", "mlp.experts.down_proj_scales"),
    },
    outer_names=_HF_OUTER,
)
ORIGINAL = Layout(
    name="original",
    encoding="mxfp4",
    layer_prefix="block.{}.",
    layer_names={
        "attn_norm": ("attn.norm.scale",),
        "qkv_weight": ("attn.qkv.weight",),
        "qkv_bias": ("attn.qkv.bias",),
        "sinks": ("attn.sinks",),
        "out_weight": ("attn.out.weight",),
        "out_bias": ("attn.out.bias",),
        "mlp_norm": ("mlp.norm.scale",),
        "router_weight": ("mlp.gate.weight",),
        "router_bias": ("mlp.gate.bias",),
        "up_weight": ("mlp.mlp1_weight.blocks", "mlp.mlp1_weight.scales"),
        "up_bias": ("mlp.mlp1_bias",),
        "down_weight": ("mlp.mlp2_weight.blocks", "mlp.mlp2_weight.scales"),
        "down_bias": ("mlp.mlp2_bias",),
    },
    outer_names={
        "embedding": "embedding.weight",
        "norm": "norm.scale",
        "lm_head": "unembedding.weight",
    },
)
HF_BF16 = Layout(
    name="hf-bf16",
    encoding="bfloat16",
    layer_prefix="model.layers.{}.",
    layer_names={
        **_HF_DENSE,
        "up_weight": ("mlp.experts.gate_up_proj",),
        "down_weight": ("mlp.experts.down_proj",),
    },
    outer_names=_HF_OUTER,
)
LAYOUTS = (HF_MXFP4, ORIGINAL, HF_BF16)
"""In order of preference where a folder holds several."""


def detect_layout(names: Iterable[str]) -> Layout | None:
    """The layout that tensor names belong to, told by the name of the experts' up projection."""
    names = list(names)
    for layout in LAYOUTS:
        mark = "." + layout.layer_names["up_weight"][0]
        if any(name.endswith(mark) for name in names):
            return layout
    return None
