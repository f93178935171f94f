"""`haast bench moe`: the expert layer over numbers of tokens, against its floor and BF16."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor

from haast import ops
from haast.bench.cases import BIAS_STD, Draw, Popularity
from haast.bench.experts import active_experts, bf16_grouped, down_work, up_work
from haast.bench.layers import Layer, copies_for, expert_bytes, free_bytes, make_layers
from haast.bench.machine import hopper, one_line
from haast.bench.rival import check_rival, rival_route
from haast.bench.rooflines import Ceilings
from haast.bench.timing import Calls, Timing, sets_past_l2, time_together
from haast.config import ModelConfig

WARMUP = 5
TARGETS_US = {
    1: 22,
    2: 41,
    4: 70,
    8: 108,
    16: 150,
    32: 155,
    64: 158,
    128: 175,
    256: 200,
    512: 230,
    1024: 360,
    2048: 640,
    4096: 1230,
    8192: 2400,
}
"""Tokens -> moe_up + moe_down of gpt-oss-20b under uniform routing on one H100 80GB HBM3"""
TARGETS_MODEL = "gpt-oss-20b"
VARIANTS = (
    *("up", "down", "route", "bf16_up", "bf16_down"),
    *("rival_up", "rival_down", "rival_route"),
)


@dataclass(frozen=True)
class Sweep:
    """What to measure."""

    model: str
    config: ModelConfig
    tokens: tuple[int, ...]
    popularity: Popularity
    replays: int
    with_rival: bool

    def target_us(self, num_tokens: int) -> int | None:
        is_known = self.model == TARGETS_MODEL and self.popularity == "uniform"
        return TARGETS_US.get(num_tokens) if is_known else None


def measure(sweep: Sweep, l2_bytes: int, ceilings: Ceilings) -> Iterator[dict[str, Any]]:
    """One row a number of tokens, as soon as it is known; `finish_row` says what it holds.

    Raises BenchError where there is no Hopper GPU, a kernel, the rival or memory is missing.
    """
    if sweep.with_rival:
        check_rival()
    config, draw = sweep.config, Draw.on(hopper())
    with one_line():
        cases = {tokens: _case(sweep, draw, tokens) for tokens in sweep.tokens}
        active = [case.num_experts for case in cases.values()]
        copies = copies_for(config, active, l2_bytes, free_bytes())
        layers = make_layers(config, copies, draw, sweep.with_rival)
        biases = (
            draw.normal(config.num_experts, 2 * config.intermediate_size, std=BIAS_STD),
            draw.normal(config.num_experts, config.hidden_size, std=BIAS_STD),
        )
        for tokens, case in cases.items():
            variants = _variants(config, case, _Rotation(layers, l2_bytes), biases)
            timings, card = time_together(variants, WARMUP, sweep.replays)
            row = finish_row(sweep, tokens, case.num_experts, timings, ceilings)
            yield row | {"card": asdict(card)}


@dataclass(frozen=True)
class _Case:
    """What one number of tokens needs beside weights and biases."""

    x: Tensor
    h: Tensor
    logits: Tensor
    routing: ops.Routing
    num_experts: int
    """how many have rows"""


def _case(sweep: Sweep, draw: Draw, num_tokens: int) -> _Case:
    config = sweep.config
    logits = draw.logits(config, num_tokens, sweep.popularity)
    routing = ops.route.reference(logits, config.num_active_experts)
    return _Case(
        x=draw.normal(num_tokens, config.hidden_size),
        h=draw.normal(num_tokens * config.num_active_experts, config.intermediate_size),
        logits=logits,
        routing=routing,
        num_experts=active_experts(routing.expert_offs),
    )


@dataclass(frozen=True)
class _Rotation:
    """Copies of the weights, of which a turn takes as many as miss the L2 cache."""

    layers: list[Layer]
    l2_bytes: int

    def over(self, nbytes: int) -> list[Layer]:
        """Layers of a turn whose calls read `nbytes` each."""
        return self.layers[: sets_past_l2(nbytes, self.l2_bytes)]


def _variants(
    config: ModelConfig, case: _Case, rotation: _Rotation, biases: tuple[Tensor, Tensor]
) -> dict[str, Calls]:
    """Name -> calls of a turn; names are keys of the row."""
    up_bytes, down_bytes, up_wide, down_wide = (
        case.num_experts * expert_bytes(config, is_up, is_bf16)
        for is_bf16 in (False, True)
        for is_up in (True, False)
    )
    routing, offs = case.routing, case.routing.expert_offs
    up_bias, down_bias = biases
    limit, num_active = config.swiglu_limit, config.num_active_experts
    rows = case.x[routing.gather_idx.long()]
    ups, downs = rotation.over(up_bytes), rotation.over(down_bytes)
    wide_ups = [layer.bf16[0] for layer in rotation.over(up_wide) if layer.bf16]
    wide_downs = [layer.bf16[1] for layer in rotation.over(down_wide) if layer.bf16]
    variants: dict[str, Calls] = {
        "up": [partial(ops.moe_up, case.x, c.up, up_bias, routing, limit) for c in ups],
        "down": [partial(ops.moe_down, case.h, c.down, down_bias, routing) for c in downs],
        "route": [partial(ops.route, case.logits, num_active)],
        "bf16_up": [partial(bf16_grouped, rows, weight, offs) for weight in wide_ups],
        "bf16_down": [partial(bf16_grouped, case.h, weight, offs) for weight in wide_downs],
    }
    if rotation.layers[0].rival is not None:
        routed = rival_route(case.logits, num_active)
        variants |= {
            "rival_up": [partial(c.rival.run_up, case.x, routed) for c in ups if c.rival],
            "rival_down": [partial(c.rival.run_down, case.h, routed) for c in downs if c.rival],
            "rival_route": [partial(rival_route, case.logits, num_active)],
        }
    return {name: calls for name, calls in variants.items() if calls}


def finish_row(
    sweep: Sweep,
    num_tokens: int,
    num_experts: int,
    timings: Mapping[str, Timing],
    ceilings: Ceilings,
) -> dict[str, Any]:
    """Timings and what follows from them; None = not measured.

    sum_us            medians of moe_up and moe_down (its combine included) added
    floor_us          the two matmuls' floors added; percent_of_floor = floor_us / sum_us
    bf16_ratio        BF16 grouped matmuls / ours; theirs leave out gather, SwiGLU and combine
    """
    config = sweep.config
    works = up_work(config, num_tokens, num_experts), down_work(config, num_tokens, num_experts)
    floor_us = sum(work.floor_us(ceilings) for work in works)
    work = works[0] + works[1]
    sum_us = _sum_us(timings, "up", "down")
    assert sum_us is not None, sorted(timings)
    bf16_us = _sum_us(timings, "bf16_up", "bf16_down")
    return {
        "tokens": num_tokens,
        "rows": num_tokens * config.num_active_experts,
        "active_experts": num_experts,
        **{name: asdict(timings[name]) if name in timings else None for name in VARIANTS},
        "sum_us": sum_us,
        "nbytes": work.nbytes,
        "flop": work.flop,
        "tb_per_s": work.nbytes / sum_us / 1e6,
        "tflop_per_s": work.flop / sum_us / 1e6,
        "floor_us": floor_us,
        "percent_of_floor": 100 * floor_us / sum_us,
        "target_us": sweep.target_us(num_tokens),
        "bf16_us": bf16_us,
        "bf16_ratio": bf16_us / sum_us if bf16_us else None,
        "rival_us": _sum_us(timings, "rival_up", "rival_down"),
    }


def _sum_us(timings: Mapping[str, Timing], *names: str) -> float | None:
    """Their medians added; None unless all were measured."""
    if not all(name in timings for name in names):
        return None
    return sum(timings[name].median_us for name in names)
