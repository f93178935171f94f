"""The MXFP4 number format: E2M1 values that share one E8M0 scale per group of 32."""

from haast.mxfp4.format import GROUP, SCALE_NAN, dequantize, pack, quantize, to_grid, unpack
from haast.mxfp4.layout import MAX_ELEMENT, MAX_SCALE, HopperLayout
from haast.mxfp4.weight import Mxfp4Weight, SwizzledWeight

__all__ = [
    "GROUP",
    "MAX_ELEMENT",
    "MAX_SCALE",
    "SCALE_NAN",
    "HopperLayout",
    "Mxfp4Weight",
    "SwizzledWeight",
    "dequantize",
    "pack",
    "quantize",
    "to_grid",
    "unpack",
]
