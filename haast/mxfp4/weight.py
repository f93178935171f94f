"""A matrix (or a stack of them) whose elements are stored as MXFP4."""

from dataclasses import dataclass

import torch
from torch import Tensor

from haast.mxfp4.format import GROUP, dequantize


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
