"""Inbox: where a step's numbers lie on the device."""

import torch
from torch import Tensor

from haast import ops
from haast.engine.inputs import FLOAT_FIELDS, Layout, Words

MOST_VIEWS = 256
"""Layouts whose views are kept"""


class Inbox:
    """One array that each step overwrites, views of it by name, and page tables that steps add to.

    largest  the Layout with the most words
    tables   shape of a page table: rows, and pages that the longest request needs
    """

    def __init__(self, largest: Layout, tables: tuple[int, int], device: torch.device) -> None:
        self._page_tables = torch.zeros(2, *tables, dtype=torch.int32, device=device)
        self._words = torch.zeros(largest.num_words, dtype=torch.int32, device=device)
        self._views: dict[Layout, dict[str, Tensor]] = {}

    def send(self, words: Words, new_pages: Words | None) -> None:
        """Start the copy of a step's numbers; see `haast.engine.inputs.pack`.

        new_pages  [2, N] entries of the page tables and the pages that go there, or None
        """
        if new_pages is not None:
            at, pages = self._pinned(new_pages).to(self._words.device, non_blocking=True)
            self._page_tables.view(-1).index_copy_(0, at.long(), pages)
        self._words[: len(words)].copy_(self._pinned(words), non_blocking=True)

    def fields(self, layout: Layout) -> dict[str, Tensor]:
        """Views by name; those of layouts that come again are kept."""
        found = self._views.get(layout)
        if found is None:
            found = {name: self._words[a:b] for name, (a, b) in layout.spans.items()}
            found |= {name: found[name].view(torch.float32) for name in FLOAT_FIELDS}
            found["seed"] = found["seed"].view(torch.int64)
            if len(self._views) >= MOST_VIEWS:
                self._views.clear()
            self._views[layout] = found
        return found

    def meta(self, layout: Layout, num_decodes: int, most_tokens: int) -> ops.StepMeta:
        """What attention has to know of the step.

        most_tokens  of one request that does not decode
        """
        fields = self.fields(layout)
        full, sliding = (table.index_select(0, fields["table_rows"]) for table in self._page_tables)
        return ops.StepMeta(
            positions=fields["positions"],
            cu_seqlens_q=fields["cu_seqlens_q"],
            kv_lens=fields["kv_lens"],
            page_table=full,
            slot_mapping=fields["slot_mapping"],
            window_page_table=sliding,
            window_slot_mapping=fields["window_slot_mapping"],
            num_decodes=num_decodes,
            max_query_len=most_tokens if num_decodes < layout.num_requests else 0,
        )

    def of_one(self, layout: Layout, samples: Tensor) -> ops.StepInputs:
        """What the one request of a decode step needs; `samples` are the step's before."""
        fields = self.fields(layout)
        return ops.StepInputs(
            input_id=fields["input_ids"],
            input_row=fields["input_rows"],
            samples=samples,
            position=fields["positions"],
            kv_len=fields["kv_lens"],
            slot=fields["slot_mapping"],
            window_slot=fields["window_slot_mapping"],
            table_row=fields["table_rows"],
            page_tables=self._page_tables,
        )

    def sampling(self, layout: Layout, count: int) -> ops.Sampling:
        """How the first rows that sample are drawn."""
        fields = self.fields(layout)
        return ops.Sampling(
            temperature=fields["temperature"][:count],
            top_k=fields["top_k"][:count],
            top_p=fields["top_p"][:count],
            min_p=fields["min_p"][:count],
            seed=fields["seed"][:count],
            position=fields["position"][:count],
        )

    def _pinned(self, words: Words) -> Tensor:
        """On the host, in memory that is copied without waiting."""
        tensor = torch.from_numpy(words)
        return tensor.pin_memory() if self._words.device.type == "cuda" else tensor
