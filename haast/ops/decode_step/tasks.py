"""What each CTA of the persistent kernel computes: cuda/step.cuh's arithmetic, in Python."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from haast.cuda.launcher import multiprocessors

WARPS = 12
STRIP = 16
MOST_SPLITS = 16
SLOT_BYTES = 24576
ROW_GAP = 64
DENSE_ROWS = 4
TILE_ROWS = 16
CHOICES = 4
MAX_OWN_ROWS = 40


@dataclass(frozen=True)
class Sizes:
    """Of a network; letters as in ARCHITECTURE.md."""

    hidden: int
    num_heads: int
    num_kv_heads: int
    intermediate: int
    num_experts: int
    vocab: int

    @property
    def qkv_rows(self) -> int:
        return (self.num_heads + 2 * self.num_kv_heads) * 64


def num_ctas_of(device: torch.device) -> int:
    """One an SM."""
    return multiprocessors(device)


def share_of(things: int, cta: int, num_ctas: int) -> range:
    """The things that are this CTA's."""
    return range(things * cta // num_ctas, things * (cta + 1) // num_ctas)


def dense_slots(num_rows: int, k: int, cta: int, num_ctas: int) -> Iterator[range]:
    """Weight rows [num_rows, k] bf16 of a CTA, slot by slot of the ring."""
    at_once = min(DENSE_ROWS, SLOT_BYTES // (2 * k + ROW_GAP))
    own = share_of(num_rows, cta, num_ctas)
    for first in range(own.start, own.stop, at_once):
        yield range(first, min(first + at_once, own.stop))


def up_units(sizes: Sizes, cta: int, num_ctas: int) -> range:
    """Tiles of gate and up rows: unit is tile unit % tiles of choice unit // tiles."""
    return range(cta, CHOICES * (2 * sizes.intermediate // TILE_ROWS), num_ctas)


def down_units(sizes: Sizes, cta: int, num_ctas: int) -> range:
    """The same of down rows, a run of neighbours."""
    return share_of(CHOICES * (sizes.hidden // TILE_ROWS), cta, num_ctas)


@dataclass(frozen=True)
class Spans:
    """The strips of 16 keys that a query sees, and how splits, then their warps, share them."""

    kv_len: int
    window: int | None

    @property
    def first_visible(self) -> int:
        return 0 if self.window is None else max(0, self.kv_len - self.window)

    @property
    def strips(self) -> range:
        return range(self.first_visible // STRIP, -(-self.kv_len // STRIP))

    @property
    def num_splits(self) -> int:
        return min(MOST_SPLITS, -(-len(self.strips) // WARPS))

    def split(self, index: int) -> range:
        """Its strips."""
        own = share_of(len(self.strips), index, self.num_splits)
        return self.strips[own.start : own.stop]

    def of_warp(self, split: int, warp: int) -> range:
        """Strips of one warp of a split, in its order."""
        return self.split(split)[warp::WARPS]


def attention_units(
    spans: Spans, num_kv_heads: int, cta: int, num_ctas: int
) -> Iterator[tuple[int, int]]:
    """(kv head, split) of a CTA."""
    for unit in range(cta, num_kv_heads * spans.num_splits, num_ctas):
        yield unit % num_kv_heads, unit // num_kv_heads
