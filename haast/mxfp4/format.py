"""MXFP4 in plain torch: constants, pack, unpack, quantise, dequantise. Runs on any device.

An element is a 4-bit E2M1 code (sign, two exponent bits, one mantissa bit); 32 consecutive
elements of the last axis form a group with one E8M0 scale byte s, worth 2^(s - 127).
Two codes share a byte, the first element in the low nibble.
Source: OCP Microscaling Formats (MX) Specification 1.0, sections 5.3.3, 5.4.1 and 6.3.
"""

from functools import cache

import torch
from torch import Tensor

GROUP = 32
SCALE_BIAS = 127
SCALE_NAN = 255
E2M1_MAX_EXPONENT = 2
E2M1_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
# Halfway points between neighbours. A tie goes to the code with an even mantissa bit, so the
# 2nd, 4th and 6th of them (between an odd code and the even code above it) round up.
_ROUND_UP_ABOVE = (0.25, 1.25, 2.5, 5.0)
_ROUND_UP_FROM = (0.75, 1.75, 3.5)


def unpack(values: Tensor) -> Tensor:
    """Packed pairs [..., K/2] uint8 -> codes [..., K] uint8 in 0..15, low nibble first."""
    return torch.stack((values & 0xF, values >> 4), dim=-1).flatten(-2)


def pack(codes: Tensor) -> Tensor:
    """Codes [..., K] uint8 in 0..15, K even -> packed pairs [..., K/2] uint8."""
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


@cache
def _pair_table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """[256, 2]: the two elements of every possible byte."""
    magnitudes = torch.tensor(E2M1_MAGNITUDES, dtype=dtype)
    elements = torch.cat((magnitudes, -magnitudes))
    codes = unpack(torch.arange(256, dtype=torch.uint8)[:, None])
    return elements[codes.int()].to(device)


@cache
def _scale_table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """[256]: 2^(s - 127) for every byte; byte 255 is NaN."""
    powers = [2.0 ** (s - SCALE_BIAS) for s in range(SCALE_NAN)] + [float("nan")]
    return torch.tensor(powers, dtype=torch.float64).to(dtype).to(device)


def dequantize(values: Tensor, scales: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The numbers that packed MXFP4 data stand for.

    values   [..., K/2] uint8
    scales   [..., K/32] uint8, E8M0
    dtype    bfloat16, float32 or float64
    returns  [..., K] dtype

    Exact for all 16 codes and scale bytes 0..254 wherever dtype can hold the number; beyond its
    range (only 2^128 and above, in bfloat16 and float32) the result is infinite. A group with
    scale byte 255 is NaN throughout.
    Raises ValueError if the shapes do not belong together.
    """
    if values.shape[:-1] != scales.shape[:-1] or values.shape[-1] * 2 != scales.shape[-1] * GROUP:
        raise ValueError(
            f"values {list(values.shape)} and scales {list(scales.shape)} do not belong together: "
            f"values must be [..., K/2] and scales [..., K/{GROUP}]"
        )
    pairs = _pair_table(dtype, values.device)[values.int()]
    groups = pairs.view(*scales.shape, GROUP)
    return (groups * _scale_table(dtype, values.device)[scales.int(), None]).flatten(-2)


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round real numbers to MXFP4, as the OCP specification says.

    x        [..., K] bfloat16 or float32, K a multiple of 32, finite
    returns  values [..., K/2] uint8, scales [..., K/32] uint8

    The scale exponent is floor(log2(max |group|)) - 2, elements round to nearest even and
    saturate at 6. Raises ValueError for another dtype, if K is no multiple of 32, or if an element
    is not finite.
    """
    if x.dtype not in (torch.bfloat16, torch.float32):
        raise ValueError(f"only bfloat16 and float32 can be quantised; got {x.dtype}")
    if x.shape[-1] % GROUP:
        raise ValueError(f"last axis must be a multiple of {GROUP}; got {x.shape[-1]}")
    if not torch.isfinite(x).all():
        raise ValueError("only finite numbers can be quantised; found inf or NaN")
    groups = x.float().reshape(*x.shape[:-1], -1, GROUP)
    exponents = _scale_exponents(groups)
    codes = _round_to_codes(torch.ldexp(groups, -exponents[..., None]))
    return pack(codes.flatten(-2)), (exponents + SCALE_BIAS).to(torch.uint8)


def _scale_exponents(groups: Tensor) -> Tensor:
    """Shared exponents [...] int32 of groups [..., 32]; an all-zero group gets the smallest."""
    amax = groups.abs().amax(-1)
    exponents = torch.frexp(amax).exponent - 1 - E2M1_MAX_EXPONENT
    return torch.where(amax > 0, exponents, -SCALE_BIAS).clamp(-SCALE_BIAS, SCALE_BIAS)


def _round_to_codes(scaled: Tensor) -> Tensor:
    """Numbers in units of the scale -> E2M1 codes; -0.0 and negatives that round to 0 are -0."""
    magnitude = scaled.abs()
    code = torch.zeros_like(magnitude, dtype=torch.uint8)
    for bound in _ROUND_UP_ABOVE:
        code += magnitude > bound
    for bound in _ROUND_UP_FROM:
        code += magnitude >= bound
    return code | (torch.signbit(scaled).to(torch.uint8) << 3)


def to_grid(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lossless conversion, with its proof.

    x        [..., K] bfloat16
    returns  values [..., K/2] uint8, scales [..., K/32] uint8, and exact [..., K] bool: whether
             each element decodes to the very same bits (so that -0.0 is told from 0.0)

    Every group that lies on some MXFP4 grid also lies on the one `quantize` picks, because the
    magnitudes {0.5, 1, 1.5, 2, 3} all stay on the grid when doubled until the largest is 4 or 6.
    """
    values, scales = quantize(x)
    decoded = dequantize(values, scales, x.dtype)
    return values, scales, decoded.view(torch.int16) == x.view(torch.int16)
