"""A row on the device for each request that runs: its pages and how it is sampled."""

from collections.abc import Sequence

import numpy as np

from haast.engine.inputs import SAMPLE_FIELDS, Words
from haast.engine.request import Request
from haast.engine.step import Step

SEED_MASK = (1 << 64) - 1


class Tables:
    """Which row a request has, and what of its pages the device does not know yet.

    The device holds [2, num_rows, max_pages] page numbers: of full-attention, then of sliding
    layers; entry i of a row holds positions [i * page_size, (i + 1) * page_size).
    """

    def __init__(self, num_rows: int, max_pages: int, page_size: int, vocab_size: int) -> None:
        self.num_rows = num_rows
        self.max_pages = max_pages
        self.page_size = page_size
        self.vocab_size = vocab_size
        self.settings: Words = np.zeros((num_rows, 2 + len(SAMPLE_FIELDS)), np.int32)
        self._rows: dict[Request, int] = {}
        self._free = list(range(num_rows))
        self._known = [0] * num_rows

    def rows(self, step: Step) -> tuple[list[int], list[Request]]:
        """Row of each of a step's requests, and those that had none before."""
        fresh = [r for r in step.requests[step.num_decodes :] if r not in self._rows]
        for request in fresh:
            self._enter(request)
        rows = self._rows
        return [rows[request] for request in step.requests], fresh

    def row(self, request: Request) -> int:
        return self._rows[request]

    def leave(self, request: Request) -> None:
        """Its row is free for another one; a request that never had one is fine."""
        row = self._rows.pop(request, None)
        if row is not None:
            self._free.append(row)

    def new_pages(self, step: Step, rows: Sequence[int]) -> Words | None:
        """[2, N] flat entries of the tables and the pages that go there; None if there are none.

        A decode has a new page only where a page begins.
        """
        at: list[int] = []
        pages: list[int] = []
        begins = np.flatnonzero(np.remainder(step.starts[: step.num_decodes], self.page_size) == 0)
        for index in (*begins.tolist(), *range(step.num_decodes, len(rows))):
            self._add_new_pages(step.requests[index], rows[index], at, pages)
        return np.array((at, pages), np.int32) if at else None

    def _add_new_pages(self, request: Request, row: int, at: list[int], pages: list[int]) -> None:
        known, count = self._known[row], len(request.window_pages)
        full = row * self.max_pages
        at += range(full + known, full + len(request.pages))
        pages += request.pages[known:]
        first = max(min(known, count), request.window_start)
        sliding = full + self.num_rows * self.max_pages
        at += range(sliding + first, sliding + count)
        pages += [page or 0 for page in request.window_pages[first:]]
        self._known[row] = min(len(request.pages), count)

    def _enter(self, request: Request) -> None:
        row = self._free.pop()
        self._rows[request] = row
        self._known[row] = 0
        params = request.params
        top_k = min(params.top_k or self.vocab_size, self.vocab_size)
        drawing = (params.temperature, params.top_p, params.min_p)
        temperature, top_p, min_p = np.array(drawing, np.float32).view(np.int32)
        seed = np.array([request.seed & SEED_MASK], np.uint64).view(np.int32)
        self.settings[row] = (*seed, temperature, top_k, top_p, min_p)
