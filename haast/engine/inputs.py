"""A Step -> one flat array of numbers, so that one copy brings a step to the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from haast.engine.step import Step

Words = NDArray[np.int32]
ALIGNMENT = 4
"""Words: kernels want their vectors to begin at 16 bytes"""
SAMPLE_FIELDS = ("temperature", "top_k", "top_p", "min_p")
FLOAT_FIELDS = ("temperature", "top_p", "min_p")
"""Whose words are the bits of fp32 numbers"""
TOKEN_FIELDS = ("input_ids", "input_rows", "positions", "slot_mapping", "window_slot_mapping")
NOWHERE = -1
"""Slot of a token whose key and value are not written"""


@dataclass(frozen=True)
class Layout:
    """Where each field of a step lies; seeds take two words each, all others one.

    is_short  whether its logits come by way of a shadow head
    """

    num_tokens: int
    num_requests: int
    num_samples: int
    is_short: bool = False

    @cached_property
    def spans(self) -> dict[str, tuple[int, int]]:
        """Field -> its first word and the word after its last."""
        samples, tokens, requests = self.num_samples, self.num_tokens, self.num_requests
        sizes = {"seed": 2 * samples, "sample_index": samples, "position": samples}
        sizes |= dict.fromkeys(SAMPLE_FIELDS, samples) | dict.fromkeys(TOKEN_FIELDS, tokens)
        sizes |= {"kv_lens": requests, "table_rows": requests, "cu_seqlens_q": requests + 1}
        found, at = {}, 0
        for name, size in sizes.items():
            found[name] = (at, at + size)
            at += -(-size // ALIGNMENT) * ALIGNMENT
        return found

    @property
    def num_words(self) -> int:
        return self.spans["cu_seqlens_q"][1]


def pack(
    step: Step, table_rows: Sequence[int], settings: Words, page_size: int, layout: Layout
) -> Words:
    """The numbers of a step.

    table_rows  of each request, in the page tables on the device
    settings    [num_samples, 2 + len(SAMPLE_FIELDS)], how each sampling row is drawn
    layout      may have room for more requests if all of them decode. Those repeat the first one,
                so that they need no other experts, and write nothing. It may also have room for
                more tokens; those belong to no request, and write nothing either
    """
    words = np.zeros(layout.num_words, np.int32)
    fields = {name: words[begin:end] for name, (begin, end) in layout.spans.items()}
    num_requests, num_samples = len(step.requests), len(step.sampling)
    stops = np.add(step.starts, step.counts)
    fields["kv_lens"][:num_requests] = stops
    fields["table_rows"][:num_requests] = table_rows
    bounds = np.cumsum(step.counts)
    fields["cu_seqlens_q"][1 : num_requests + 1] = bounds
    is_sampling = np.flatnonzero(step.samples)
    fields["sample_index"][:num_samples] = bounds[is_sampling] - 1
    fields["position"][:num_samples] = stops[is_sampling]
    fields["seed"].reshape(-1, 2)[:num_samples] = settings[:, :2]
    for column, name in enumerate(SAMPLE_FIELDS, start=2):
        fields[name][:num_samples] = settings[:, column]
    _pack_tokens(step, page_size, fields)
    if layout.num_requests > num_requests:
        _repeat_first(fields, num_requests)
    for name in ("slot_mapping", "window_slot_mapping"):
        fields[name][step.num_tokens :] = NOWHERE
    return words


def _pack_tokens(step: Step, page_size: int, fields: dict[str, Words]) -> None:
    """Decodes row by row, then chunks."""
    decodes, starts = step.num_decodes, step.starts
    pairs = list(zip(step.requests[:decodes], starts, strict=False))
    fields["input_ids"][:decodes] = step.input_ids
    fields["input_rows"][:] = -1
    fields["input_rows"][:decodes] = step.input_rows
    fields["positions"][:decodes] = starts[:decodes]
    fields["slot_mapping"][:decodes] = [
        r.pages[at // page_size] * page_size + at % page_size for r, at in pairs
    ]
    fields["window_slot_mapping"][:decodes] = [
        (r.window_pages[at // page_size] or 0) * page_size + at % page_size for r, at in pairs
    ]
    begin = decodes
    for row in range(decodes, len(step.requests)):
        request, start, count = step.requests[row], starts[row], step.counts[row]
        own = slice(begin, begin + count)
        positions = np.arange(start, start + count, dtype=np.int32)
        fields["input_ids"][own] = step.chunk_ids(row)
        fields["positions"][own] = positions
        first = start // page_size
        index, offset = positions // page_size - first, positions % page_size
        last = int(index[-1]) + first + 1
        for name, pages in (
            ("slot_mapping", request.pages),
            ("window_slot_mapping", request.window_pages),
        ):
            fields[name][own] = np.array(pages[first:last], np.int32)[index] * page_size + offset
        begin += count


def _repeat_first(fields: dict[str, Words], num_requests: int) -> None:
    for name in ("input_ids", "input_rows", "positions", "kv_lens", "table_rows"):
        fields[name][num_requests:] = fields[name][0]
    bounds = fields["cu_seqlens_q"]
    bounds[num_requests:] = np.arange(num_requests, len(bounds))
