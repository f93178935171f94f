"""Attention over a paged KV cache: contract in reference.py, kernels in preference order here."""

from haast.ops.attention import cuda, reference
from haast.ops.attention.meta import StepMeta
from haast.ops.dispatch import Op

attention = Op("attention", reference.attention, (cuda.CUDA, cuda.CUDA_PREFILL))

__all__ = ["StepMeta", "attention"]
