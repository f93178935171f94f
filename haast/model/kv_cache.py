"""The paged key-value cache and its sizes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from haast.config import ModelConfig

PAGE_SIZE = 128


@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer in pages; a page holds PAGE_SIZE consecutive positions."""

    k: Tensor
    """[num_layers, num_pages, PAGE_SIZE, Hkv, D]"""
    v: Tensor
    """[num_layers, num_pages, PAGE_SIZE, Hkv, D]"""

    @classmethod
    def empty(
        cls, config: ModelConfig, num_pages: int, dtype: torch.dtype, device: torch.device
    ) -> "KVCache":
        """A cache of `num_pages` pages a layer with undefined contents."""
        shape = (config.num_layers, num_pages, PAGE_SIZE, config.num_kv_heads, config.head_dim)
        return cls(
            k=torch.empty(shape, dtype=dtype, device=device),
            v=torch.empty(shape, dtype=dtype, device=device),
        )


def kv_bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes that one position takes over all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize
