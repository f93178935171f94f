"""Logits of the tokens that may be sampled: contract and proof in reference.py."""

from haast.ops.dispatch import Op
from haast.ops.shortlist import reference
from haast.ops.shortlist.shadow import ShadowHead, shadow_of

shortlist = Op("shortlist", reference.shortlist)

__all__ = ["ShadowHead", "shadow_of", "shortlist"]
