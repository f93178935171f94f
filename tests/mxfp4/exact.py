"""MXFP4 from the text of the OCP specification, in exact rational numbers; shares no code."""

import math
import struct
from fractions import Fraction

import torch

INT = {torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}


def element(code: int) -> Fraction:
    """The magnitude of an E2M1 code: two exponent bits with bias 1, one mantissa bit."""
    exponent, mantissa = code >> 1 & 3, code & 1
    if exponent == 0:
        return Fraction(mantissa, 2)
    return (1 + Fraction(mantissa, 2)) * Fraction(2) ** (exponent - 1)


def is_negative(code: int) -> bool:
    return code >= 8


def number(code: int, scale: int) -> float:
    """What a code with a scale byte stands for; beyond the double range it cannot be."""
    magnitude = math.ldexp(float(element(code)), scale - 127)
    return -magnitude if is_negative(code) else magnitude


def bits(value: float, dtype: torch.dtype) -> int:
    """The bit pattern of a number that dtype holds exactly, or of infinity beyond its range."""
    if dtype == torch.float64:
        return struct.unpack("<q", struct.pack("<d", value))[0]
    if abs(value) >= 2.0**128:
        value = math.copysign(math.inf, value)
    word = struct.unpack("<i", struct.pack("<f", value))[0]
    if dtype == torch.float32:
        return word
    assert word & 0xFFFF == 0, value
    return word >> 16


def round_to_code(x: float, scale: int) -> int:
    """The nearest code; of two that are as near the one with an even mantissa; 6 at most."""
    target = abs(Fraction(x)) / Fraction(2) ** (scale - 127)
    nearest = min(range(8), key=lambda c: (abs(element(c) - target), c & 1))
    return nearest + (8 if math.copysign(1, x) < 0 else 0)


def scale_of(group: list[float]) -> int:
    """floor(log2(max)) - 2 as a byte; the smallest for what lies below it and for zeros."""
    amax = max(map(abs, group))
    if amax == 0:
        return 0
    return max(math.frexp(amax)[1] - 1 - 2, -127) + 127


def as_bits(x: torch.Tensor) -> torch.Tensor:
    """A view in which NaN and the sign of zero compare."""
    return x.view(INT[x.dtype])
