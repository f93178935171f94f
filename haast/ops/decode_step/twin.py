"""The persistent kernel in torch: the same tasks, CTA by CTA, and the same roundings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from haast.mxfp4 import Mxfp4Weight, SwizzledWeight
from haast.ops.attention.check import GROUP_HEADS, PAGE_SIZE
from haast.ops.decode_step import tasks
from haast.ops.decode_step.network import StepInputs, StepLayer, StepNetwork
from haast.ops.decode_step.tasks import CHOICES, TILE_ROWS, WARPS
from haast.ops.moe.reference import swiglu
from haast.ops.rms_norm.reference import rms_norm
from haast.ops.rope import rotate

SM_SCALE = 0.125


def decode_step(network: StepNetwork, inputs: StepInputs, num_ctas: int) -> Tensor:
    """Logits [1, V] as so many CTAs compute them; runs on the CPU. The module's `__init__` has the
    contract.

    Every result is written once, by the CTA whose task it is: what none computes stays NaN.
    """
    (logits,) = decode_step_of_ranks([network], inputs, num_ctas)
    return logits


def decode_step_of_ranks(
    networks: Sequence[StepNetwork], inputs: StepInputs, num_ctas: int
) -> list[Tensor]:
    """The same of several ranks, each its part of the logits; they differ in their caches only.

    Raises AssertionError where a rank has other sums than rank 0.
    """
    runs = [_Run(network, network.sizes, inputs, num_ctas) for network in networks]
    xs = [run.network.embedding[run.input_id] for run in runs]
    for layers in zip(*(network.layers for network in networks), strict=True):
        ranks = range(len(runs))
        parts = [runs[r].attention(layers[r], xs[r]) for r in ranks]
        xs = [xs[r] + sum_of_attention(parts) for r in ranks]
        terms = [runs[r].experts(layers[r], xs[r]) for r in ranks]
        xs = [xs[r] + sum_of_experts(terms, r) for r in ranks]
        assert all(torch.equal(x, xs[0]) for x in xs), "sums of ranks differ"
    normed = [
        rms_norm(x, network.norm, network.eps) for x, network in zip(xs, networks, strict=True)
    ]
    return [run.dense(run.network.head, None, x)[None] for run, x in zip(runs, normed, strict=True)]


def sum_of_attention(parts: list[Tensor]) -> Tensor:
    """What ranks have of o's result [H] bf16, added in their order, of more than four by fours."""
    fours = [parts[at : at + 4] for at in range(0, len(parts), 4)]
    return _sum([_sum([part.float() for part in four]) for four in fours]).to(parts[0].dtype)


def sum_of_experts(terms: list[Tensor], rank: int) -> Tensor:
    """Terms [A, H] bf16 of ranks, choice by choice, then rank by rank, of two the own one first."""
    order = [rank, 1 - rank] if len(terms) == 2 else range(len(terms))
    return _sum([_sum(list(terms[r].float())) for r in order]).to(terms[0].dtype)


def _sum(values: list[Tensor]) -> Tensor:
    """fp32, one after the other."""
    total = torch.zeros_like(values[0])
    for value in values:
        total = total + value
    return total


@dataclass(frozen=True)
class _Run:
    network: StepNetwork
    sizes: tasks.Sizes
    inputs: StepInputs
    num_ctas: int

    @property
    def input_id(self) -> int:
        row = int(self.inputs.input_row)
        return int(self.inputs.samples[row] if row >= 0 else self.inputs.input_id)

    def dense(self, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
        """[N] in x's dtype."""
        out = _nothing(len(weight), like=x)
        for cta in range(self.num_ctas):
            for rows in tasks.dense_slots(len(weight), len(x), cta, self.num_ctas):
                own = slice(rows.start, rows.stop)
                assert out[own].isnan().all()
                sums = weight[own].float() @ x.float()
                out[own] = (sums if bias is None else sums + bias[own].float()).to(x.dtype)
        return out

    def attention(self, layer: StepLayer, x: Tensor) -> Tensor:
        """What this rank has of o's result [H]."""
        normed = rms_norm(x, layer.attn_norm, self.network.eps)
        heads = self.dense(layer.qkv_weight, layer.qkv_bias, normed).view(-1, 64)
        q, kv = heads[: self.sizes.num_heads], heads[self.sizes.num_heads :]
        k, v = kv.chunk(2)
        tables = (self.network.cos, self.network.sin)
        q, k = (rotate(y[None], self.inputs.position, *tables)[0] for y in (q, k))
        slot = int(self.inputs.slot if layer.window is None else self.inputs.window_slot)
        if slot >= 0:
            at = (slot // PAGE_SIZE, slice(None), slot % PAGE_SIZE)
            layer.k_cache[at], layer.v_cache[at] = k, v
        attended = self.attend(layer, q).flatten()
        return self.dense(layer.out_weight, layer.out_bias, attended)

    def attend(self, layer: StepLayer, q: Tensor) -> Tensor:
        """[Hq, 64]: units of all CTAs, their splits joined in order."""
        spans = tasks.Spans(int(self.inputs.kv_len), layer.window)
        kv_heads = self.sizes.num_kv_heads
        parts: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}
        for cta in range(self.num_ctas):
            for head, split in tasks.attention_units(spans, kv_heads, cta, self.num_ctas):
                assert (head, split) not in parts
                own = q.view(kv_heads, GROUP_HEADS, 64)[head]
                warps = [
                    self.strips(layer, own, head, spans, spans.of_warp(split, warp))
                    for warp in range(WARPS)
                ]
                parts[head, split] = _join(warps)
        out = torch.empty(kv_heads, GROUP_HEADS, 64)
        for head in range(kv_heads):
            sinks = layer.sinks.view(kv_heads, GROUP_HEADS)[head].float()
            sink = (sinks, torch.ones_like(sinks), torch.zeros(GROUP_HEADS, 64))
            splits = [parts[head, split] for split in range(spans.num_splits)]
            _, total, sums = _join([sink, *splits])
            out[head] = sums / total[:, None]
        return out.view(-1, 64).to(q.dtype)

    def strips(
        self, layer: StepLayer, q: Tensor, head: int, spans: tasks.Spans, strips: range
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(largest score, sum of weights, weighted values) of a warp's keys, by head."""
        is_window = layer.window is not None
        table = self.inputs.page_tables[int(is_window), int(self.inputs.table_row)]
        keys = [at for s in strips for at in range(s * tasks.STRIP, (s + 1) * tasks.STRIP)]
        seen = [at for at in keys if spans.first_visible <= at < spans.kv_len]
        if not seen:
            none = torch.zeros(GROUP_HEADS)
            return none - math.inf, none, torch.zeros(GROUP_HEADS, 64)
        pages = torch.tensor([int(table[at // PAGE_SIZE]) for at in seen])
        offsets = torch.tensor([at % PAGE_SIZE for at in seen])
        k, v = (cache[pages, head, offsets].float() for cache in (layer.k_cache, layer.v_cache))
        scores = q.float() @ k.T * SM_SCALE
        top = scores.amax(1)
        weights = (scores - top[:, None]).exp()
        return top, weights.sum(1), weights.to(q.dtype).float() @ v

    def experts(self, layer: StepLayer, x: Tensor) -> Tensor:
        """The terms [A, H] of the chosen experts that this rank has."""
        normed = rms_norm(x, layer.mlp_norm, self.network.eps)
        scores = layer.router_weight.float() @ normed.float() + layer.router_bias.float()
        best, order = scores.to(x.dtype).float().sort(descending=True, stable=True)
        weights, chosen = best[:CHOICES].softmax(0), order[:CHOICES].tolist()
        ctas, sizes = range(self.num_ctas), self.sizes
        up = [tasks.up_units(sizes, cta, self.num_ctas) for cta in ctas]
        doubled = self.tiles(layer.up_weight, layer.up_bias, chosen, [normed] * CHOICES, up)
        gated = swiglu(doubled, self.network.swiglu_limit).to(x.dtype)
        down = [tasks.down_units(sizes, cta, self.num_ctas) for cta in ctas]
        terms = self.tiles(layer.down_weight, layer.down_bias, chosen, list(gated), down)
        return (terms * weights[:, None]).to(x.dtype)

    def tiles(
        self,
        weight: Mxfp4Weight | SwizzledWeight | Tensor,
        bias: Tensor,
        chosen: list[int],
        x: list[Tensor],
        units: list[range],
    ) -> Tensor:
        """[A, N] fp32: tile by tile, each choice's rows times its own x, with the bias."""
        matrices = [_matrix(weight, expert) for expert in chosen]
        tiles = len(matrices[0]) // TILE_ROWS
        out = _nothing(CHOICES, len(matrices[0]), like=torch.empty(0))
        for unit in (unit for own in units for unit in own):
            choice, first = unit // tiles, unit % tiles * TILE_ROWS
            rows = slice(first, first + TILE_ROWS)
            assert out[choice, rows].isnan().all()
            sums = matrices[choice][rows] @ x[choice].float()
            out[choice, rows] = sums + bias[chosen[choice], rows].float()
        return out


def _matrix(weight: Mxfp4Weight | SwizzledWeight | Tensor, expert: int) -> Tensor:
    own = weight[expert]
    return own.float() if isinstance(own, Tensor) else own.dequantize(torch.float32)


def _nothing(*shape: int, like: Tensor) -> Tensor:
    return torch.full(shape, math.nan, dtype=like.dtype)


def _join(parts: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Tops, sums of weights and weighted values of several sets of keys to those of all."""
    top = torch.stack([part[0] for part in parts]).amax(0)
    scales = [(part[0] - top).exp() for part in parts]
    total = sum(part[1] * scale for part, scale in zip(parts, scales, strict=True))
    values = sum(part[2] * scale[:, None] for part, scale in zip(parts, scales, strict=True))
    assert isinstance(total, Tensor) and isinstance(values, Tensor)
    return top, total, values
