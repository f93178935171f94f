"""Logits of the tokens that may be sampled: contract and proof in reference.py, kernels here."""

from haast.ops.dispatch import Op
from haast.ops.shortlist import cuda_scan, reference
from haast.ops.shortlist.shadow import ShadowHead, shadow_of

shortlist = Op("shortlist", reference.shortlist, (cuda_scan.SCAN,))

__all__ = ["ShadowHead", "shadow_of", "shortlist"]
