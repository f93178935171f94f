"""What a Hopper kernel reads from swizzled storage, instruction by instruction, in exact numbers.

Written from the kernels' side: where a lane's words lie, which bits its four extractions keep, and
which rows and columns the mma instruction gives to the lane. Shares no code with the layout.
"""

import numpy as np

MASK = 0x81C081C0


def bf16(pattern: np.ndarray) -> np.ndarray:
    """The doubles that 16-bit patterns stand for; none is infinite or NaN."""
    exponent, mantissa = pattern >> 7 & 0xFF, pattern & 0x7F
    assert (exponent < 255).all()
    magnitude = np.where(exponent > 0, 1 + mantissa / 128, mantissa / 128)
    sign = np.where(pattern >> 15 & 1, -1.0, 1.0)
    return sign * np.ldexp(magnitude, np.maximum(exponent, 1) - 127)


def extracted(x: np.ndarray) -> list[np.ndarray]:
    """The kernel's four registers of two bf16 each, of 32-bit words held in int64."""
    rotated = (x << 10 | x >> 22) & 0xFFFFFFFF
    return [
        x & MASK,
        (x << 4) & MASK,
        rotated & MASK,
        ((x << 6) & 0x80C080C0) | ((x >> 2) & 0x01000100),
    ]


def decoded(storage: np.ndarray, k: int, paired: bool) -> np.ndarray:
    """Storage [N/16, KB, 544] uint8 of one matrix -> its numbers [N, k] float64.

    Columns beyond k, which are padding, must be zero and are cut off.
    """
    tiles, blocks, size = storage.shape
    assert size == 544
    data = storage.astype(np.int64)
    out = np.full((tiles, 16, blocks, 64), np.nan)
    for lane in range(32):
        g, t = lane // 4, lane % 4
        for j in range(4):
            begin = lane * 16 + j * 4
            word = sum(data[..., begin + byte] << 8 * byte for byte in range(4))
            for number, register in enumerate(extracted(word)):
                row = g + 8 * (number % 2)
                column = 16 * j + 2 * t + 8 * (number // 2)
                scale = bf16(data[..., 512 + 4 * g + 2 * (j // 2) + number % 2] << 7)
                out[:, row, :, column] = bf16(register & 0xFFFF) * scale
                out[:, row, :, column + 1] = bf16(register >> 16) * scale
    assert (out.reshape(tiles, 16, blocks * 64)[..., k:] == 0).all()
    rows = np.empty((16 * tiles, blocks * 64))
    for tile in range(tiles):
        for row in range(16):
            half, g = row // 8, row % 8
            place = 2 * (8 * tile + g) + half if paired else 16 * tile + row
            rows[place] = out[tile, row].reshape(-1)
    return rows[:, :k]
