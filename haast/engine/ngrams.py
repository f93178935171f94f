"""Ngrams: finds where the last tokens of a text stood before, and what followed. Pure Python."""

from array import array
from collections.abc import Sequence

MOST_CANDIDATES = 8
"""Earlier places of the shortest n-gram, newest first, of which the one that fits best is taken"""


class Ngrams:
    """Of one text that grows.

    shortest  last tokens that must have stood there
    longest   tokens that are compared: the more are equal the better; among equals the newest
    """

    def __init__(self, shortest: int, longest: int) -> None:
        self.shortest = shortest
        self.longest = longest
        self.ids: list[int] = []
        self._ends: dict[int, int] = {}
        """hash of a shortest n-gram -> where it last ended"""
        self._earlier = array("i")
        """where the n-gram that ends after each token ended before that, 0 = nowhere"""

    def read(self, new_ids: Sequence[int], budget: int) -> int:
        """Add tokens, and take so many at most into the index; returns how many.

        The index has all but the last one: the n-gram that is looked up must not find itself.
        """
        ids, size, earlier, ends = self.ids, self.shortest, self._earlier, self._ends
        ids += new_ids
        first = len(earlier) + 1
        stop = min(len(ids), first + budget)
        for end in range(first, stop):
            if end < size:
                earlier.append(0)
                continue
            key = hash(tuple(ids[end - size : end]))
            earlier.append(ends.get(key, 0))
            ends[key] = end
        return max(0, stop - first)

    def following(self, skip: int, count: int) -> list[int]:
        """`count` tokens that followed, without `skip` before them; none if there is no place."""
        ids, end = self.ids, self._best_end()
        if end is None:
            return []
        period = len(ids) - end  # what goes on to here goes on as it did from there
        return [ids[end + i % period] for i in range(skip, skip + count)]

    def _best_end(self) -> int | None:
        ids, size = self.ids, self.shortest
        end = self._ends.get(hash(tuple(ids[-size:])), 0) if len(ids) >= size else 0
        best, most_equal = None, size - 1
        for _ in range(MOST_CANDIDATES):
            if not end or most_equal == self.longest:
                break
            num_equal = self._num_equal(end)
            if num_equal > most_equal:
                best, most_equal = end, num_equal
            end = self._earlier[end - 1]
        return best

    def _num_equal(self, end: int) -> int:
        """Tokens before `end` that equal the last ones; no more than are compared."""
        ids = self.ids
        most = min(self.longest, end)
        return next((n for n in range(most) if ids[end - 1 - n] != ids[-1 - n]), most)
