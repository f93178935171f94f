"""Call: what a device is to compute of a step. Rank 0 makes it and tells it the other ranks."""

from typing import NamedTuple

from haast.engine.inputs import Layout, Words


class Call(NamedTuple):
    """One forward pass up to its logits, and nothing that only sampling needs.

    layout        where the numbers of `words` lie
    words         of the step; see `haast.engine.inputs.pack`
    new_pages     [2, N] entries of the page tables and the pages that go there, or None
    num_decodes   requests at the front that decode
    num_rows      rows whose logits are wanted; None = those of every token
    most_tokens   of one request that does not decode
    is_replayed   whether it is one for CUDA graphs, or for the kernel of a lone request instead
    num_samples   tokens that rank 0 has sampled since the last call, which others lack
    """

    layout: Layout
    words: Words
    new_pages: Words | None
    num_decodes: int
    num_rows: int | None
    most_tokens: int
    is_replayed: bool
    num_samples: int

    @property
    def is_lone(self) -> bool:
        """Whether the kernel for a lone request computes it, where there is one."""
        return self.is_replayed and self.layout.num_requests == self.num_decodes == 1
