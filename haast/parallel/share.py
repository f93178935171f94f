"""Which part of a network a rank has: one of several processes that compute it together."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from haast.config import ConfigError, ModelConfig
from haast.mxfp4 import GROUP

Range = tuple[int, int]
ONCE = ("out_bias", "down_bias")
"""Roles that rank 0 alone adds, since what they join is summed over ranks"""


class Cut(NamedTuple):
    """What a rank has of a role: ranges along one axis, side by side.

    axis  of the role as Parameters holds it, contraction last
    """

    axis: int
    ranges: tuple[Range, ...]


@dataclass(frozen=True)
class Share:
    """A rank's part of a network: attention by heads, experts by their intermediate axis in whole
    groups of MXFP4, the head by vocabulary. Norms, router and embedding are everywhere.

    Every rank has a part of every expert, so that all are equally busy whatever experts a token
    wants. Parts of the intermediate axis differ by one group at most, the larger ones first.
    """

    config: ModelConfig
    """of the whole network"""
    size: int
    rank: int

    @property
    def local(self) -> ModelConfig:
        """The network that this rank computes, but for the head."""
        if self.size == 1:
            return self.config
        start, stop = self.inner
        return replace(
            self.config,
            num_heads=self.config.num_heads // self.size,
            num_kv_heads=self.config.num_kv_heads // self.size,
            intermediate_size=stop - start,
        )

    @property
    def inner(self) -> Range:
        """Of the experts' intermediate axis."""
        each, more = divmod(self.config.intermediate_size // GROUP, self.size)
        start = self.rank * each + min(self.rank, more)
        return GROUP * start, GROUP * (start + each + (self.rank < more))

    @property
    def vocabulary(self) -> Range:
        """The tokens that it scores."""
        return self._even(self.config.vocab_size)

    def cut(self, role: str) -> Cut | None:
        """Of a role of Parameters; None = all of it."""
        if self.size == 1:
            return None
        config = self.config
        start, stop = self.inner
        heads = self._even(config.num_heads * config.head_dim)
        cuts = {
            "qkv_weight": Cut(0, self._qkv()),
            "qkv_bias": Cut(0, self._qkv()),
            "sinks": Cut(0, (self._even(config.num_heads),)),
            "out_weight": Cut(1, (heads,)),
            "up_weight": Cut(1, ((2 * start, 2 * stop),)),
            "up_bias": Cut(1, ((2 * start, 2 * stop),)),
            "down_weight": Cut(2, ((start, stop),)),
            "lm_head": Cut(0, (self.vocabulary,)),
        }
        return cuts.get(role)

    def is_zero(self, role: str) -> bool:
        """Whether a role is all zeros here because rank 0 adds it."""
        return self.rank > 0 and role in ONCE

    def _qkv(self) -> tuple[Range, ...]:
        """Rows of queries, keys and values."""
        config = self.config
        first, ranges = 0, []
        for heads in (config.num_heads, config.num_kv_heads, config.num_kv_heads):
            start, stop = self._even(heads * config.head_dim)
            ranges.append((first + start, first + stop))
            first += heads * config.head_dim
        return tuple(ranges)

    def _even(self, count: int) -> Range:
        each = count // self.size
        return self.rank * each, (self.rank + 1) * each


def shares_of(config: ModelConfig, devices: str | None, size: int) -> tuple[Share, ...]:
    """A network over `size` ranks, by rank.

    devices  as wished for, to name in errors
    Raises ConfigError, in one line, if it cannot be split over so many.
    """
    counts = {
        "key-value heads": config.num_kv_heads,
        "query heads": config.num_heads,
        "tokens of a vocabulary": config.vocab_size,
    }
    for what, count in counts.items():
        if count % size:
            raise ConfigError(f"devices '{devices}': {count} {what} cannot be split over {size}")
    if config.intermediate_size // GROUP < size:
        raise ConfigError(
            f"devices '{devices}': the {config.intermediate_size // GROUP} groups of {GROUP} of an "
            f"expert's intermediate size {config.intermediate_size} cannot be split over {size}"
        )
    return tuple(Share(config, size, rank) for rank in range(size))
