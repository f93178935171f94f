"""Arguments of ops at a model's shapes: random ones on a GPU, shapes alone on `meta`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from haast.bench.small_cases import SMALL_BUILDERS
from haast.bench.steps import decode_step, prompt_step
from haast.config import ModelConfig
from haast.model.config_file import read_model_config
from haast.model.kv_cache import PAGE_SIZE
from haast.model.locate import locate_config
from haast.mxfp4 import GROUP, HopperLayout, Mxfp4Weight, SwizzledWeight
from haast.ops import Routing, StepMeta, rope_tables, route

Popularity = Literal["uniform", "skewed"]

BIAS_STD = 0.02
SCALES = (118, 124)
"""First and last scale byte of random weights"""
MOST_DECODES = 512
"""Tokens up to which a step is one new token of each of as many requests"""
CONTEXT = 1024
"""Keys of such a request"""


def read_config(model: str) -> ModelConfig:
    """Shapes of a model that `haast.model.locate.locate_config` finds."""
    return read_model_config(locate_config(model))


def shares(popularity: Popularity, num_experts: int, generator: torch.Generator) -> Tensor:
    """[E] fp64, how often each expert is a token's first choice.

    uniform = all alike; skewed = Zipf's law, the r-th most popular has 1/r of the first one's
    share, ranks dealt to experts at random: of 32 experts the hottest gets a quarter.
    """
    ranks = torch.arange(1, num_experts + 1, dtype=torch.float64, device=generator.device)
    weights = torch.ones_like(ranks) if popularity == "uniform" else 1 / ranks
    order = torch.randperm(num_experts, generator=generator, device=generator.device)
    return (weights / weights.sum())[order]


def router_logits(num_tokens: int, expert_shares: Tensor, generator: torch.Generator) -> Tensor:
    """[T, E] bf16 whose top A are A distinct experts, drawn in turn by their shares [E].

    Logarithms of the shares plus Gumbel noise (Gumbel top-k).
    """
    shape = (num_tokens, len(expert_shares))
    waits = torch.empty(shape, dtype=torch.float64, device=expert_shares.device)
    gumbel = -waits.exponential_(generator=generator).log()
    return (expert_shares.log() + gumbel).bfloat16()


@dataclass(frozen=True)
class Draw:
    """Random tensors on one device."""

    device: torch.device
    generator: torch.Generator | None
    """None on `meta`, where tensors hold no numbers"""

    @classmethod
    def on(cls, device: torch.device, seed: int = 0) -> "Draw":
        if device.type == "meta":
            return cls(device, None)
        return cls(device, torch.Generator(device).manual_seed(seed))

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        """bf16."""
        drawn = torch.randn(shape, generator=self.generator, device=self.device)
        return drawn.mul_(std).bfloat16()

    def mxfp4(self, *shape: int) -> Mxfp4Weight:
        """Uniformly random codes [..., N, K] with scale bytes of SCALES."""
        *rows, k = shape
        values = torch.empty((*rows, k // 2), dtype=torch.uint8, device=self.device)
        scales = torch.empty((*rows, k // GROUP), dtype=torch.uint8, device=self.device)
        first, last = SCALES
        return Mxfp4Weight(
            values=values.random_(0, 256, generator=self.generator),
            scales=scales.random_(first, last + 1, generator=self.generator),
        )

    def swizzled(self, *shape: int, paired: bool = False) -> SwizzledWeight:
        """`mxfp4` in the layout that kernels read."""
        layout = HopperLayout(paired=paired)
        if self.device.type == "meta":
            storage = torch.empty(
                layout.storage_shape(torch.Size(shape)), dtype=torch.uint8, device=self.device
            )
            return SwizzledWeight(storage, shape[-1], layout)
        return self.mxfp4(*shape).swizzled(layout)

    def logits(
        self, config: ModelConfig, num_tokens: int, popularity: Popularity = "uniform"
    ) -> Tensor:
        """[T, E] bf16, what the router gives for tokens whose experts have that popularity."""
        if self.generator is None:
            return self.normal(num_tokens, config.num_experts)
        expert_shares = shares(popularity, config.num_experts, self.generator)
        return router_logits(num_tokens, expert_shares, self.generator)

    def routing(
        self, config: ModelConfig, num_tokens: int, popularity: Popularity = "uniform"
    ) -> Routing:
        """Where the reference sends `logits`."""
        if self.generator is None:
            return self._empty_routing(config, num_tokens)
        logits = self.logits(config, num_tokens, popularity)
        return route.reference(logits, config.num_active_experts)

    def _empty_routing(self, config: ModelConfig, num_tokens: int) -> Routing:
        num_active = config.num_active_experts

        def empty(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=self.device)

        return Routing(
            expert_ids=empty(num_tokens, num_active),
            expert_weights=empty(num_tokens, num_active, dtype=torch.float32),
            expert_offs=empty(config.num_experts + 1),
            gather_idx=empty(num_tokens * num_active),
            scatter_idx=empty(num_tokens * num_active),
        )


def _route(draw: Draw, config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    return draw.logits(config, num_tokens), config.num_active_experts


def _moe_up(draw: Draw, config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    wide = 2 * config.intermediate_size
    return (
        draw.normal(num_tokens, config.hidden_size),
        draw.swizzled(config.num_experts, wide, config.hidden_size, paired=True),
        draw.normal(config.num_experts, wide, std=BIAS_STD),
        draw.routing(config, num_tokens),
        config.swiglu_limit,
    )


def _moe_down(draw: Draw, config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    experts, hidden = config.num_experts, config.hidden_size
    return (
        draw.normal(num_tokens * config.num_active_experts, config.intermediate_size),
        draw.swizzled(experts, hidden, config.intermediate_size),
        draw.normal(experts, hidden, std=BIAS_STD),
        draw.routing(config, num_tokens),
    )


def _grouped_matmul(draw: Draw, config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    """The up projection's weights, without gather, bias and SwiGLU."""
    wide = 2 * config.intermediate_size
    return (
        draw.normal(num_tokens * config.num_active_experts, config.hidden_size),
        draw.swizzled(config.num_experts, wide, config.hidden_size),
        draw.routing(config, num_tokens).expert_offs,
    )


def _step(device: torch.device, num_tokens: int) -> StepMeta:
    """Up to MOST_DECODES tokens are of as many requests with CONTEXT keys, more are one prompt."""
    if num_tokens <= MOST_DECODES:
        return decode_step(device, num_tokens, CONTEXT)
    return prompt_step(device, num_tokens)


def _caches(draw: Draw, config: ModelConfig, meta: StepMeta) -> tuple[Tensor, Tensor]:
    """A pool of all pages that the step names."""
    shape = (meta.page_table.numel(), config.num_kv_heads, PAGE_SIZE, config.head_dim)
    return draw.normal(*shape), draw.normal(*shape)


def _rope_kv_write(draw: Draw, config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    meta = _step(draw.device, num_tokens)
    tables = rope_tables(config.rope, config.head_dim, max(CONTEXT, num_tokens))
    return (
        draw.normal(num_tokens, config.qkv_size),
        meta.positions,
        *(table.to(draw.device) for table in tables),
        *_caches(draw, config, meta),
        meta.slot_mapping,
    )


def _attention(draw: Draw, config: ModelConfig, num_tokens: int) -> tuple[Any, ...]:
    """Of a layer without a window."""
    meta = _step(draw.device, num_tokens)
    return (
        draw.normal(num_tokens, config.num_heads, config.head_dim),
        *_caches(draw, config, meta),
        draw.normal(config.num_heads),
        meta,
        None,
    )


BUILDERS: dict[str, Callable[[Draw, ModelConfig, int], tuple[Any, ...]]] = {
    "rope_kv_write": _rope_kv_write,
    "attention": _attention,
    "route": _route,
    "moe_up": _moe_up,
    "moe_down": _moe_down,
    "grouped_matmul": _grouped_matmul,
    **SMALL_BUILDERS,
}
"""Op -> positional arguments for T tokens; every op that has kernels is here"""
