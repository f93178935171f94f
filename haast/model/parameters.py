"""The numbers of one network, by role; those of a layer in haast/ops/layer_parameters.py."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from haast.mxfp4 import HopperLayout
from haast.ops import ExpertWeights, LayerParameters

EXPERT_LAYOUTS = {
    "up_weight": HopperLayout(paired=True),
    "down_weight": HopperLayout(paired=False),
}
"""The order in which kernels read the experts; pairs of gate and up rows stay together"""


@dataclass(frozen=True)
class Parameters:
    """The whole network."""

    embedding: Tensor
    """[V, H]"""
    layers: tuple[LayerParameters, ...]
    norm: Tensor
    """[H]"""
    lm_head: Tensor
    """[V, H]"""

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._all())

    def to(self, dtype: torch.dtype) -> "Parameters":
        """Dense tensors in another dtype; MXFP4 bytes stay bytes."""

        def cast(value: ExpertWeights) -> ExpertWeights:
            return value.to(dtype) if isinstance(value, Tensor) else value

        layers = tuple(_mapped(layer, cast) for layer in self.layers)
        dense = {name: getattr(self, name).to(dtype) for name in ("embedding", "norm", "lm_head")}
        return Parameters(layers=layers, **dense)

    def _all(self) -> Iterator[ExpertWeights]:
        yield from (self.embedding, self.norm, self.lm_head)
        for layer in self.layers:
            yield from (getattr(layer, field.name) for field in fields(layer))


def _mapped(
    layer: LayerParameters, fn: Callable[[ExpertWeights], ExpertWeights]
) -> LayerParameters:
    changed: dict[str, Any] = {f.name: fn(getattr(layer, f.name)) for f in fields(layer)}
    return LayerParameters(**changed)
