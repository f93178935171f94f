"""Which rows go to which expert."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Routing:
    """Which experts each token goes to, and the ragged order that groups rows by expert.

    Three tokens, A = 2, E = 4, expert_ids [[2, 0], [2, 3], [0, 2]]: routed row i is slot
    scatter_idx[i] = token * A + choice, sorted by expert and then by token:
    expert_offs [0, 2, 2, 5, 6], scatter_idx [1, 4, 0, 2, 5, 3], gather_idx [0, 2, 0, 1, 2, 1].
    """

    expert_ids: Tensor
    """[T, A] int32"""
    expert_weights: Tensor
    """[T, A] fp32, each row sums to 1"""
    expert_offs: Tensor
    """[E + 1] int32, prefix sum of rows per expert"""
    gather_idx: Tensor
    """[R] int32, source token of each routed row"""
    scatter_idx: Tensor
    """[R] int32, token * A + choice of each routed row"""
