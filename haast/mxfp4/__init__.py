"""The MXFP4 number format: E2M1 values that share one E8M0 scale per group of 32."""

from haast.mxfp4.format import GROUP, SCALE_NAN, dequantize, pack, quantize, to_grid, unpack
from haast.mxfp4.weight import Mxfp4Weight

__all__ = [
    "GROUP",
    "SCALE_NAN",
    "Mxfp4Weight",
    "dequantize",
    "pack",
    "quantize",
    "to_grid",
    "unpack",
]
