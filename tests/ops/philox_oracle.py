"""Seeds and positions whose random number is known, for tests that want a certain one."""

from functools import cache

import torch
from torch import Tensor

from haast.ops.sample.philox import uniform

COUNT = 1 << 17


@cache
def table() -> tuple[Tensor, Tensor]:
    """Numbers of seed 0 in ascending order, and the positions that have them."""
    numbers = uniform(torch.zeros(COUNT, dtype=torch.int64), torch.arange(COUNT))
    return numbers.sort()


def positions_around(number: float) -> tuple[int, int]:
    """Positions of seed 0 with the largest number below this one and with the next."""
    numbers, positions = table()
    at = int(torch.searchsorted(numbers, number, right=False))
    return int(positions[max(at - 1, 0)]), int(positions[min(at, COUNT - 1)])


def nearest(number: float) -> int:
    """The position of seed 0 whose number is within about 1e-5 of this one."""
    return positions_around(number)[1]
