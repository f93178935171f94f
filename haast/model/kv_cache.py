"""The paged key-value cache and its sizes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from haast.config import CacheFormat, ModelConfig

PAGE_SIZE = 128
"""The one that kernels read"""
CACHE_DTYPES: dict[CacheFormat, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
}


@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer in pages; a page holds page_size consecutive positions.

    There are two pools of pages: one that all full-attention layers index alike, and one for all
    sliding layers, which need the last few pages of a request only.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    """k and v of each layer, [num_pages of its pool, Hkv, page_size, D]"""

    @classmethod
    def empty(
        cls,
        config: ModelConfig,
        num_full_pages: int,
        num_window_pages: int,
        dtype: torch.dtype,
        device: torch.device,
        page_size: int = PAGE_SIZE,
    ) -> "KVCache":
        """A cache with so many pages a layer of each kind and undefined contents."""

        def pages(window: int | None) -> tuple[Tensor, Tensor]:
            num_pages = num_full_pages if window is None else num_window_pages
            shape = (2, num_pages, config.num_kv_heads, page_size, config.head_dim)
            k, v = torch.empty(shape, dtype=dtype, device=device)
            return k, v

        return cls(tuple(pages(window) for window in config.windows))


@dataclass(frozen=True)
class TokenBytes:
    """Bytes that one position takes in each pool, over the layers that use it."""

    full: int
    window: int

    @property
    def total(self) -> int:
        return self.full + self.window

    @classmethod
    def of(cls, config: ModelConfig, dtype: torch.dtype) -> "TokenBytes":
        """Of a network whose cache has this dtype."""
        layer = 2 * config.num_kv_heads * config.head_dim * dtype.itemsize
        num_full = sum(window is None for window in config.windows)
        return cls(full=num_full * layer, window=(config.num_layers - num_full) * layer)
