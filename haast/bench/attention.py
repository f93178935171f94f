"""`haast bench attention`: decode over batches and contexts, prompts over lengths, and floors."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from haast import ops
from haast.bench.cases import Draw
from haast.bench.machine import hopper, one_line
from haast.bench.rooflines import Ceilings, Work
from haast.bench.steps import decode_step, prompt_step
from haast.bench.timing import Calls, sets_past_l2, time_together
from haast.config import CacheFormat, ModelConfig
from haast.model.kv_cache import CACHE_DTYPES, PAGE_SIZE

WARMUP = 3
BF16_BYTES = 2


@dataclass(frozen=True)
class Sweep:
    """What to measure: every batch with every context, and every prompt alone."""

    config: ModelConfig
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    prompts: tuple[int, ...]
    replays: int
    cache_format: CacheFormat = "bfloat16"


@dataclass(frozen=True)
class Point:
    """One call: `batch` requests with one query and `context` keys each, or one prompt."""

    batch: int | None
    """None: a prompt of `context` tokens"""
    context: int
    window: int | None
    """of the layer"""


def points(sweep: Sweep) -> list[Point]:
    """All calls, those of full-attention and sliding layers beside each other."""
    windows = sorted(set(sweep.config.windows), key=lambda window: window or 0)
    decodes = [(batch, context) for batch in sweep.batches for context in sweep.contexts]
    steps: list[tuple[int | None, int]] = [*decodes, *((None, size) for size in sweep.prompts)]
    return [Point(*step, window) for step in steps for window in windows]


def visible_keys(point: Point) -> int:
    """Pairs of a query and a key that it sees, over all requests."""
    window = min(point.window or point.context, point.context)
    if point.batch is not None:
        return point.batch * window
    return window * (window + 1) // 2 + (point.context - window) * window


def work(config: ModelConfig, point: Point, cache_format: CacheFormat = "bfloat16") -> Work:
    """Bytes: the visible keys and values once, queries and results. FLOP: two products a pair."""
    pairs = visible_keys(point)
    keys = point.context if point.batch is None else pairs
    queries = point.context if point.batch is None else point.batch
    cached = CACHE_DTYPES[cache_format].itemsize * 2 * keys * config.num_kv_heads
    return Work(
        nbytes=config.head_dim * (cached + BF16_BYTES * 2 * queries * config.num_heads),
        flop=4 * config.head_dim * config.num_heads * pairs,
    )


def measure(sweep: Sweep, l2_bytes: int, ceilings: Ceilings) -> Iterator[dict[str, Any]]:
    """One row a point, as soon as it is known; `finish_row` says what it holds.

    Raises BenchError where there is no Hopper GPU, a kernel or memory is missing.
    """
    draw = Draw.on(hopper())
    for point in points(sweep):
        needed = work(sweep.config, point, sweep.cache_format)
        with one_line():
            copies = sets_past_l2(needed.nbytes, l2_bytes) if point.batch is not None else 1
            variants: dict[str, Calls] = {
                "attention": [_call(draw, sweep, point) for _ in range(copies)]
            }
            timings, card = time_together(variants, WARMUP, sweep.replays)
        row = finish_row(point, needed, timings["attention"].median_us, ceilings)
        yield row | {"timing": asdict(timings["attention"]), "card": asdict(card)}


def _call(draw: Draw, sweep: Sweep, point: Point) -> Callable[[], object]:
    if point.batch is None:
        meta = prompt_step(draw.device, point.context)
    else:
        meta = decode_step(draw.device, point.batch, point.context)
    config, dtype = sweep.config, CACHE_DTYPES[sweep.cache_format]
    shape = (meta.page_table.numel(), config.num_kv_heads, PAGE_SIZE, config.head_dim)
    q = draw.normal(len(meta.positions), config.num_heads, config.head_dim)
    caches = (draw.normal(*shape).to(dtype), draw.normal(*shape).to(dtype))
    sinks = draw.normal(config.num_heads)
    return partial(ops.attention, q, *caches, sinks, meta, point.window)


def finish_row(point: Point, needed: Work, us: float, ceilings: Ceilings) -> dict[str, Any]:
    """A median and what follows from it; percent_of_floor = floor_us / us."""
    floor_us = needed.floor_us(ceilings)
    return {
        **asdict(point),
        "us": us,
        "tb_per_s": needed.nbytes / us / 1e6,
        "tflop_per_s": needed.flop / us / 1e6,
        "floor_us": floor_us,
        "percent_of_floor": 100 * floor_us / us,
    }


HEADING = "  batch  context  window        us   TB/s  TFLOP/s  % floor"


def row_line(row: dict[str, Any]) -> str:
    """A row under HEADING; a prompt has no batch, a full-attention layer no window."""
    batch = "prompt" if row["batch"] is None else row["batch"]
    window = "-" if row["window"] is None else row["window"]
    return (
        f"{batch:>7}{row['context']:>9}{window:>8}{row['us']:>10.1f}{row['tb_per_s']:>7.2f}"
        f"{row['tflop_per_s']:>9.1f}{row['percent_of_floor']:>9.1f}"
    )
