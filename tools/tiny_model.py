"""haast-tiny as a trainable network: the inference ops' formulas, with gradients.

Experts are quantisation-aware: the forward pass sees what MXFP4 will store, the gradient goes
straight through. Everything else is used in bf16, as at inference.
"""

import torch
from tiny_data import IGNORED, Rows
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, one_hot

from haast.config import ModelConfig
from haast.mxfp4 import dequantize, quantize
from haast.ops.moe import swiglu
from haast.ops.rms_norm.reference import rms_norm
from haast.ops.rope import rope_tables, rotate

BALANCE_WEIGHT = 0.01
EXPERTS = ("up_weight", "down_weight")


class TinyModel(nn.Module):
    """Parameters in fp32, stacked over layers; names and shapes as LayerParameters."""

    def __init__(self, config: ModelConfig, seed: int, max_length: int) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        for name, (shape, std) in _initial(config).items():
            drawn = torch.randn(shape, generator=generator) * std
            self.register_parameter(name, nn.Parameter(drawn + ("norm" in name)))
        cos, sin = rope_tables(config.rope, config.head_dim, max_length)
        self.cos, self.sin = nn.Buffer(cos), nn.Buffer(sin)

    def usable(self) -> dict[str, Tensor]:
        """Parameters as the forward pass reads them: bf16, experts on the MXFP4 grid."""
        return {
            name: (_straight_through(value) if name in EXPERTS else value).bfloat16()
            for name, value in self.named_parameters()
        }

    def forward(self, p: dict[str, Tensor], rows: Rows) -> tuple[Tensor, Tensor]:
        """Logits [N, S, V] bf16 and the router's balance loss."""
        config, (num_rows, length) = self.config, rows.ids.shape
        x = p["embedding"][rows.ids].flatten(0, 1)
        balance = x.new_zeros((), dtype=torch.float32)
        masks = {window: _mask(rows, window) for window in set(config.windows)}
        for layer in range(config.num_layers):
            weights = {name: value[layer] for name, value in p.items() if name not in GLOBAL}
            mask = masks[config.windows[layer]]
            x = x + self._attention(x, weights, mask, rows.positions.flatten())
            y, layer_balance = self._experts(x, weights)
            x, balance = x + y, balance + layer_balance
        x = rms_norm(x, p["norm"], config.rms_norm_eps)
        return linear(x, p["lm_head"]).view(num_rows, length, -1), balance

    def _attention(
        self, x: Tensor, w: dict[str, Tensor], mask: Tensor, positions: Tensor
    ) -> Tensor:
        config = self.config
        num_rows, length, _ = mask.shape
        x = rms_norm(x, w["attn_norm"], config.rms_norm_eps)
        heads = linear(x, w["qkv_weight"], w["qkv_bias"]).view(len(x), -1, config.head_dim)
        q, k, v = torch.split(
            heads, [config.num_heads, config.num_kv_heads, config.num_kv_heads], dim=1
        )
        q, k = (rotate(x, positions, self.cos, self.sin) for x in (q, k))
        q = q.view(num_rows, length, config.num_kv_heads, -1, config.head_dim)
        k, v = (t.reshape(num_rows, length, config.num_kv_heads, -1) for t in (k, v))
        scores = torch.einsum("nqhgd,nkhd->nhgqk", q, k).float() * config.head_dim**-0.5
        scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
        sinks = w["sinks"].float().view(1, config.num_kv_heads, -1, 1, 1)
        sinks = sinks.expand(num_rows, -1, -1, length, 1)
        attention = torch.cat((scores, sinks), -1).softmax(-1)[..., :-1].to(x.dtype)
        out = torch.einsum("nhgqk,nkhd->nqhgd", attention, v).reshape(len(x), -1)
        return linear(out, w["out_weight"], w["out_bias"])

    def _experts(self, x: Tensor, w: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Every expert on every token, weighted by the router: dense, because it is small."""
        config = self.config
        x = rms_norm(x, w["mlp_norm"], config.rms_norm_eps)
        scores = linear(x, w["router_weight"], w["router_bias"]).float()
        top, ids = scores.topk(config.num_active_experts)
        chosen = one_hot(ids, config.num_experts)
        gates = (chosen * top.softmax(-1)[..., None]).sum(1)
        share = chosen.sum(1).float().mean(0) / config.num_active_experts
        balance = config.num_experts * (share * scores.softmax(-1).mean(0)).sum()
        z = torch.einsum("th,enh->ten", x, w["up_weight"]) + w["up_bias"]
        h = swiglu(z.float(), config.swiglu_limit) * gates[..., None]
        y = torch.einsum("tei,ehi->th", h.to(x.dtype), w["down_weight"])
        return y + gates.to(x.dtype) @ w["down_bias"], balance


GLOBAL = ("embedding", "norm", "lm_head")


def loss_of(model: TinyModel, p: dict[str, Tensor], rows: Rows) -> tuple[Tensor, Tensor]:
    """Training loss, and the cross entropy alone."""
    logits, balance = model(p, rows)
    targets = rows.targets.flatten().long()
    entropy = cross_entropy(logits.flatten(0, 1).float(), targets, ignore_index=IGNORED)
    return entropy + BALANCE_WEIGHT * balance, entropy


def _mask(rows: Rows, window: int | None) -> Tensor:
    """[N, S, S] bool: same conversation, not later, not beyond the window."""
    same = rows.documents[:, :, None] == rows.documents[:, None, :]
    distance = rows.positions[:, :, None] - rows.positions[:, None, :]
    mask = same & (distance >= 0)
    return mask if window is None else mask & (distance < window)


def _straight_through(weight: Tensor) -> Tensor:
    stored = dequantize(*quantize(weight.detach()), dtype=torch.float32)
    return weight + (stored - weight).detach()


def _initial(c: ModelConfig) -> dict[str, tuple[tuple[int, ...], float]]:
    """Shape and standard deviation of every parameter at the start (norms around 1)."""
    layers, hidden, experts = c.num_layers, c.hidden_size, c.num_experts
    out_size = c.num_heads * c.head_dim
    shrink = (2 * layers) ** -0.5
    return {
        "embedding": ((c.vocab_size, hidden), 0.5),
        "norm": ((hidden,), 0.0),
        "lm_head": ((c.vocab_size, hidden), hidden**-0.5),
        "attn_norm": ((layers, hidden), 0.0),
        "qkv_weight": ((layers, c.qkv_size, hidden), hidden**-0.5),
        "qkv_bias": ((layers, c.qkv_size), 0.0),
        "sinks": ((layers, c.num_heads), 1.0),
        "out_weight": ((layers, hidden, out_size), shrink * out_size**-0.5),
        "out_bias": ((layers, hidden), 0.0),
        "mlp_norm": ((layers, hidden), 0.0),
        "router_weight": ((layers, experts, hidden), hidden**-0.5),
        "router_bias": ((layers, experts), 0.0),
        "up_weight": ((layers, experts, 2 * c.intermediate_size, hidden), hidden**-0.5),
        "up_bias": ((layers, experts, 2 * c.intermediate_size), 0.0),
        "down_weight": (
            (layers, experts, hidden, c.intermediate_size),
            shrink * c.intermediate_size**-0.5,
        ),
        "down_bias": ((layers, experts, hidden), 0.0),
    }
