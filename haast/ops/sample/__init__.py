"""Sampling: the contract in reference.py, kernels in preference order here."""

from haast.ops.dispatch import Op
from haast.ops.sample import cuda_cluster, reference
from haast.ops.sample.log_softmax import logprobs
from haast.ops.sample.reference import Sampling

sample = Op("sample", reference.sample, (cuda_cluster.SAMPLE,))

__all__ = ["Sampling", "logprobs", "sample"]
