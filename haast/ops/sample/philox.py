"""Random numbers that are a function of (seed, position), whatever else is in the batch.

Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11.
"""

from typing import TypeVar

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
Word = TypeVar("Word", int, Tensor)


def philox(
    counter: tuple[Word, Word, Word, Word], key: tuple[Word, Word]
) -> tuple[Word, Word, Word, Word]:
    """Four 32-bit random words for a counter and a key of 32-bit words.

    Words are ints, or int64 tensors of one shape: the lower half of a product wraps into the sign,
    its upper half is masked after the shift.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        low, high = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        upper, lower = (high >> 32) & _MASK, (low >> 32) & _MASK
        c0, c1, c2, c3 = upper ^ c1 ^ k0, high & _MASK, lower ^ c3 ^ k1, low & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def uniform(seed: Tensor, position: Tensor) -> Tensor:
    """Numbers in [0, 1) with 32 random bits, each for one position of a request's stream.

    seed      [B] int64, the bits of a number in [0, 2^64)
    position  [B] int32 or int64
    returns   [B] fp64, exact
    """
    position = position.long()
    zero = torch.zeros_like(position)
    counter = (position & _MASK, (position >> 32) & _MASK, zero, zero)
    return philox(counter, (seed & _MASK, (seed >> 32) & _MASK))[0].double() / 2**32
