"""Matrices stored as MXFP4: in checkpoint order, or in the order that kernels read."""

from dataclasses import dataclass

import torch
from torch import Tensor

from haast.mxfp4.format import GROUP, dequantize
from haast.mxfp4.layout import TILE_ROWS, HopperLayout


@dataclass(frozen=True)
class Mxfp4Weight:
    """Weights [..., N, K] as published: bytes in checkpoint order, contraction axis last.

    values  [..., N, K/2] uint8, two E2M1 codes a byte, low nibble first
    scales  [..., N, K/32] uint8, E8M0
    """

    values: Tensor
    scales: Tensor

    @property
    def shape(self) -> torch.Size:
        """The logical shape [..., N, K]."""
        return torch.Size((*self.scales.shape[:-1], self.scales.shape[-1] * GROUP))

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scales.nbytes

    def __getitem__(self, index: int) -> "Mxfp4Weight":
        """One matrix of the stack."""
        return Mxfp4Weight(self.values[index], self.scales[index])

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weights as numbers, [..., N, K] dtype; exact (see `format.dequantize`)."""
        return dequantize(self.values, self.scales, dtype)

    def swizzled(self, layout: HopperLayout) -> "SwizzledWeight":
        """The same weights prepared for kernels, once at load; see `HopperLayout.swizzle`."""
        storage = layout.swizzle(self.values, self.scales)
        return SwizzledWeight(storage, self.shape[-1], layout)


@dataclass(frozen=True)
class SwizzledWeight:
    """Weights [..., N, K] in the one order that our kernels read.

    storage  [..., N/16, ceil(K/64), 544] uint8
    k        K; the storage may have half a block of padding beyond it
    layout   which order the rows are in
    """

    storage: Tensor
    k: int
    layout: HopperLayout

    @property
    def shape(self) -> torch.Size:
        """The logical shape [..., N, K]."""
        *lead, tiles, _, _ = self.storage.shape
        return torch.Size((*lead, tiles * TILE_ROWS, self.k))

    @property
    def nbytes(self) -> int:
        return self.storage.nbytes

    @property
    def device(self) -> torch.device:
        return self.storage.device

    def __getitem__(self, index: int) -> "SwizzledWeight":
        """One matrix of the stack."""
        return SwizzledWeight(self.storage[index], self.k, self.layout)

    def unswizzled(self) -> Mxfp4Weight:
        """The same weights in checkpoint order, byte for byte."""
        return Mxfp4Weight(*self.layout.unswizzle(self.storage, self.k))

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weights as numbers, [..., N, K] dtype; exact (see `format.dequantize`)."""
        return self.unswizzled().dequantize(dtype)
