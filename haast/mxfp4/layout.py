"""The order of MXFP4 bytes that our Hopper kernels read, its making and its exact inverse.

A matrix [N, K] is cut into blocks of 16 rows x 64 columns, 544 bytes each: [N/16, ceil(K/64), 544].
Bytes 0..511 hold the codes, 16 bytes a lane: four words, one for each 16 columns, each of which is
the lane's share of the A operand of mma.m16n8k16 and wgmma m64k16. With g = lane // 4 and
t = lane % 4, codes a0..a7 of word j sit at

    row    g    g    g+8  g+8  g    g    g+8  g+8
    column 2t   2t+1 2t   2t+1 2t+8 2t+9 2t+8 2t+9    + 16 j

and their bits lie such that with M = 0x81C081C0 the pairs come out as two bfloat16 each, in units
of 2^-126 and with the first code in the low half:

    a0 a1: x & M    a2 a3: x << 4 & M    a4 a5: rotate_left(x, 10) & M
    a6 a7: (x << 6 & 0x80C080C0) | (x >> 2 & 0x01000100)

Bytes 512..543 hold the scales, four bytes for each g: rows g and g+8 of the first 32 columns, then
of the last 32. A stored byte is the E8M0 byte + 126: shifted left by 7 it is the bfloat16 of
2^126 times the scale, so that one multiplication undoes the unit of the codes too.

Where K ends in the middle of a block its second half is padding: codes 0, scales 2^-127.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, unflatten
from torch.nn.functional import pad

from haast.mxfp4.format import E2M1_MAGNITUDES, GROUP, SCALE_BIAS

TILE_ROWS = 16
BLOCK_K = 64
BLOCK_BYTES = 544
CODE_BYTES = 512
SCALE_OFFSET = 126
MAX_SCALE = 254 - SCALE_OFFSET
"""The largest E8M0 byte whose stored byte is a finite bfloat16's exponent"""
MAX_ELEMENT = E2M1_MAGNITUDES[-1] * 2.0 ** (MAX_SCALE - SCALE_BIAS)
_BITS = (
    *(6, 7, 8, 15, 22, 23, 24, 31),
    *(2, 3, 4, 11, 18, 19, 20, 27),
    *(28, 29, 30, 5, 12, 13, 14, 21),
    *(0, 1, 10, 9, 16, 17, 26, 25),
)
"""Where the bits of a0, a1, a2 ... lie in a word, each code from its mantissa bit to its sign"""
_INVERSE_BITS = tuple(_BITS.index(bit) for bit in range(32))


@dataclass(frozen=True)
class HopperLayout:
    """Weights [..., N, K] as storage [..., N/16, ceil(K/64), 544] uint8; see the module.

    N is a multiple of 16, K of 32. Both directions are exact and work matrix by matrix: scratch
    memory stays below 4 bytes an element of one matrix, besides the result.
    """

    paired: bool
    """Row r of tile i is matrix row 16 i + r; if paired, rows g and g + 8 of it are matrix rows
    16 i + 2 g and the next one, so that gate and up of one element meet in one lane"""

    def storage_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Of a weight [..., N, K]. Raises ValueError unless N and K are multiples of 16 and 32."""
        *lead, n, k = shape
        if n % TILE_ROWS or k % GROUP:
            raise ValueError(
                f"weight [..., N, K] is {list(shape)}; "
                f"N must be a multiple of {TILE_ROWS} and K of {GROUP}"
            )
        return (*lead, n // TILE_ROWS, math.ceil(k / BLOCK_K), BLOCK_BYTES)

    def swizzle(self, values: Tensor, scales: Tensor) -> Tensor:
        """Bytes in checkpoint order -> storage, on the same device.

        values   [..., N, K/2] uint8, two E2M1 codes a byte, low nibble first
        scales   [..., N, K/32] uint8, E8M0 bytes 0..128
        returns  [..., N/16, ceil(K/64), 544] uint8

        Raises ValueError for another dtype, shapes that do not belong together or cannot be
        tiled, or the first scale byte above 128.
        """
        _check_weight(values, scales)
        shape = self.storage_shape((*values.shape[:-1], 2 * values.shape[-1]))
        storage = torch.empty(shape, dtype=torch.uint8, device=values.device)
        stacks = (_stack(storage, 3), _stack(values, 2), _stack(scales, 2))
        for matrix in zip(*stacks, strict=True):
            self._swizzle_matrix(*matrix)
        return storage

    def unswizzle(self, storage: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Storage of a weight [..., N, k] -> values and scales in checkpoint order.

        storage  [..., N/16, ceil(k/64), 544] uint8
        returns  values [..., N, k/2] uint8, scales [..., N, k/32] uint8

        Raises ValueError for another dtype or if the storage is none of K = k.
        """
        _check_storage(storage, k)
        rows = (*storage.shape[:-3], storage.shape[-3] * TILE_ROWS)
        values = torch.empty((*rows, k // 2), dtype=torch.uint8, device=storage.device)
        scales = torch.empty((*rows, k // GROUP), dtype=torch.uint8, device=storage.device)
        stacks = (_stack(storage, 3), _stack(values, 2), _stack(scales, 2))
        for matrix in zip(*stacks, strict=True):
            self._unswizzle_matrix(*matrix)
        return values, scales

    def _swizzle_matrix(self, place: Tensor, values: Tensor, scales: Tensor) -> None:
        """Fill place [N/16, KB, 544] from values [N, K/2] and scales [N, K/32]."""
        blocks = place.shape[1]
        values = pad(values, (0, blocks * BLOCK_K // 2 - values.shape[1]))
        scales = pad(scales, (0, blocks * BLOCK_K // GROUP - scales.shape[1]))
        # A byte holds two neighbours of one fragment: [tile, 2, g, KB, j, column half, t].
        pairs = unflatten(self._tiles(values), -1, (blocks, 4, 2, 4))
        words = pairs.permute(0, 3, 2, 6, 4, 5, 1).flatten(-2)
        place[..., :CODE_BYTES] = _permute_bits(words, _BITS).flatten(2)
        groups = unflatten(self._tiles(scales), -1, (blocks, 2))
        place[..., CODE_BYTES:] = groups.permute(0, 3, 2, 4, 1).flatten(2) + SCALE_OFFSET

    def _unswizzle_matrix(self, place: Tensor, values: Tensor, scales: Tensor) -> None:
        """Fill values [N, K/2] and scales [N, K/32] from place [N/16, KB, 544]."""
        words = unflatten(place[..., :CODE_BYTES], -1, (8, 4, 4, 4))
        pairs = unflatten(_permute_bits(words, _INVERSE_BITS), -1, (2, 2))
        tiles = pairs.permute(0, 6, 2, 1, 4, 5, 3).flatten(3)
        self._tiles(values).copy_(tiles[..., : values.shape[1]])
        groups = unflatten(place[..., CODE_BYTES:], -1, (8, 2, 2)) - SCALE_OFFSET
        tiles = groups.permute(0, 4, 2, 1, 3).flatten(3)
        self._tiles(scales).copy_(tiles[..., : scales.shape[1]])

    def _tiles(self, rows: Tensor) -> Tensor:
        """A view of [N, X] as [N/16, 2, 8, X]: tile, half of the tile, g."""
        tiles = len(rows) // TILE_ROWS
        if self.paired:
            return unflatten(rows, 0, (tiles, 8, 2)).transpose(1, 2)
        return unflatten(rows, 0, (tiles, 2, 8))


def _stack(x: Tensor, num_axes: int) -> tuple[Tensor, ...]:
    """The matrices of [..., and that many axes], one by one."""
    lead, shape = x.shape[:-num_axes], x.shape[-num_axes:]
    return x.reshape(math.prod(lead), *shape).unbind()


def _permute_bits(words: Tensor, targets: tuple[int, ...]) -> Tensor:
    """Words [..., 4] uint8, little-endian, whose bit i moves to bit targets[i]."""
    table = _byte_moves(targets, words.device)
    moved = table[0, words[..., 0].int()]
    for byte in range(1, 4):
        moved |= table[byte, words[..., byte].int()]
    return moved[..., None].view(torch.uint8)


@cache
def _byte_moves(targets: tuple[int, ...], device: torch.device) -> Tensor:
    """[4, 256] int32: where the bits of every possible byte go, at each place in a word."""
    table = torch.zeros(4, 256, dtype=torch.int32)
    byte = torch.arange(256, dtype=torch.int32)
    for bit, target in enumerate(targets):
        table[bit // 8] |= (byte >> bit % 8 & 1) << target
    return table.to(device)


def _check_weight(values: Tensor, scales: Tensor) -> None:
    if values.dtype != torch.uint8 or scales.dtype != torch.uint8:
        raise ValueError(f"values and scales must be uint8; got {values.dtype} and {scales.dtype}")
    is_pair = values.shape[:-1] == scales.shape[:-1] and values.ndim >= 2
    if not is_pair or values.shape[-1] * 2 != scales.shape[-1] * GROUP:
        raise ValueError(
            f"values {list(values.shape)} and scales {list(scales.shape)} do not belong together: "
            f"values must be [..., N, K/2] and scales [..., N, K/{GROUP}]"
        )
    if scales.numel() and scales.max() > MAX_SCALE:
        index = (scales > MAX_SCALE).nonzero()[0].tolist()
        raise ValueError(f"scale byte {scales[*index]} at {index}; allowed are 0..{MAX_SCALE}")


def _check_storage(storage: Tensor, k: int) -> None:
    if storage.dtype != torch.uint8:
        raise ValueError(f"storage must be uint8; got {storage.dtype}")
    blocks = [math.ceil(k / BLOCK_K), BLOCK_BYTES]
    if k % GROUP or storage.ndim < 3 or list(storage.shape[-2:]) != blocks:
        raise ValueError(
            f"storage {list(storage.shape)} is none of K = {k}: it must be "
            f"[..., N/{TILE_ROWS}, ceil(K/{BLOCK_K}), {BLOCK_BYTES}] with K a multiple of {GROUP}"
        )
