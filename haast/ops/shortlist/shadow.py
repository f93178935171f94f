"""The shadow of a language-model head: half its bytes, and how far each row may be off."""

from dataclasses import dataclass

import torch
from torch import Tensor

MOST_CODE = 127
LARGEST = 2.0**40
"""Of a weight; a row with a larger one has no bound, and is always computed"""
SMALLEST = 2.0**-100
"""Of a row's largest weight; below it the row's codes are 0, and all of it is in its bound"""
LOSS = 1.25 * 2.0**-23
"""What a product may lose in a sum, as a share of the sum of all magnitudes; see reference.py"""
SPARE_PRODUCTS = 64
"""Stand for what is rounded after the sum"""
PIECE_ROWS = 2048


@dataclass(frozen=True)
class ShadowHead:
    """Codes of a weight [V, K] and their bounds; see `haast.ops.shortlist.reference`."""

    codes: Tensor
    """[V, K] int8, -127 to 127"""
    bounds: Tensor
    """[V, 2] fp32: the scale of a row's codes; its radius, infinite for a row without a bound"""
    num_computed: Tensor
    """[1] int64, rows of the weight that kernels have computed since this was made"""

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.bounds.nbytes + self.num_computed.nbytes


def shadow_bytes(num_rows: int, k: int) -> int:
    """Of the shadow of a weight [num_rows, k]."""
    return num_rows * (k + 8) + 8


def shadow_of(weight: Tensor) -> ShadowHead:
    """The shadow of a weight [V, K], made on its device some rows at a time.

    A row's scale is its largest magnitude over 127. A scale for every 64 elements would take 3 %
    more bytes and shrink the radius of normal ones by a quarter; candidates are few as it is.
    """
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    bounds = torch.empty(len(weight), 2, device=weight.device)
    for first in range(0, len(weight), PIECE_ROWS):
        own = slice(first, first + PIECE_ROWS)
        codes[own], bounds[own] = _shadow_of_rows(weight[own])
    return ShadowHead(codes, bounds, torch.zeros(1, dtype=torch.int64, device=weight.device))


def _shadow_of_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and bounds; in fp64, where a weight less scale times code is as good as exact."""
    wide = weight.double()
    largest = wide.abs().amax(1)
    has_bound = largest <= LARGEST  # NaN has none
    wide = wide.masked_fill(~has_bound[:, None], 0.0)
    scale = (largest / MOST_CODE).float().masked_fill(~has_bound | (largest < SMALLEST), 0.0)
    steps = wide / scale.double().masked_fill(scale == 0, torch.inf)[:, None]
    codes = steps.round().clamp(-MOST_CODE, MOST_CODE)
    near = codes * scale.double()[:, None]
    loss = LOSS * (weight.shape[1] + SPARE_PRODUCTS)
    radius = (wide - near).norm(dim=1) + loss * (wide.norm(dim=1) + near.norm(dim=1))
    radius = (radius * (1 + 2.0**-20)).float().masked_fill(~has_bound, torch.inf)
    return codes.to(torch.int8), torch.stack((scale, radius), 1)
