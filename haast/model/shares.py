"""A rank's part of stored tensors, and of tensors in memory."""

from collections.abc import Mapping

import torch
from torch import Tensor

from haast.model.layouts import EXPERT_ROLES, Source
from haast.model.safetensors_file import StoredTensor
from haast.mxfp4 import GROUP, Mxfp4Weight
from haast.parallel.share import Cut, Share


def stored_parts(
    source: Source, tensors: Mapping[str, StoredTensor], share: Share
) -> list[StoredTensor]:
    """What a rank has of a source's tensors; of rows that are stacked one part a range."""
    stored = [tensors[spec.name] for spec in source.tensors]
    cut = share.cut(source.role)
    if cut is None:
        return stored
    if source.role in EXPERT_ROLES:
        return [_expert_part(tensor, cut) for tensor in stored]
    if cut.axis > 0:
        return [tensor.cut(cut.axis, *at) for tensor in stored for at in cut.ranges]
    parts, first = [], 0
    for tensor in stored:
        rows = tensor.shape[0]
        for start, stop in cut.ranges:
            start, stop = max(start - first, 0), min(stop - first, rows)
            if start < stop:
                parts.append(tensor.cut(0, start, stop))
        first += rows
    return parts


def _expert_part(stored: StoredTensor, cut: Cut) -> StoredTensor:
    """Of MXFP4 blocks or scales [E, N, K / 32, ...], or of BF16 [E, K, N]."""
    ((start, stop),) = cut.ranges
    if stored.dtype == "BF16":
        return stored.cut(3 - cut.axis, start, stop)
    unit = GROUP if cut.axis == 2 else 1
    return stored.cut(cut.axis, start // unit, stop // unit)


def part_of(weight: Mxfp4Weight | Tensor, role: str, share: Share) -> Mxfp4Weight | Tensor:
    """What a rank has of a parameter, copied; all of it is the same object."""
    cut = share.cut(role)
    if isinstance(weight, Mxfp4Weight):
        if cut is None:
            return weight
        return Mxfp4Weight(
            _narrowed(weight.values, cut, unit=2), _narrowed(weight.scales, cut, unit=GROUP)
        )
    if share.is_zero(role):
        return torch.zeros_like(weight)
    return weight if cut is None else _narrowed(weight, cut, unit=1)


def _narrowed(tensor: Tensor, cut: Cut, unit: int) -> Tensor:
    """unit  elements of the weight that an entry of the contraction axis, 2, holds"""
    unit = unit if cut.axis == 2 else 1
    ranges = [(start // unit, (stop - start) // unit) for start, stop in cut.ranges]
    return torch.cat([tensor.narrow(cut.axis, *at) for at in ranges], cut.axis)
