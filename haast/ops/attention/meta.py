"""What attention has to know about a step."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StepMeta:
    """Which requests a step computes and where their keys and values live.

    One instance a step, shared by all layers; B requests, T new tokens. Requests with exactly one
    new token may come first and are then counted in num_decodes. Full-attention layers and sliding
    layers have a pool of pages each, hence two page tables and two slot mappings; both tables are
    indexed alike: entry i of a request holds its positions [i * page_size, (i + 1) * page_size).
    Several of those that come first may be one request at consecutive positions, with the same
    pages: keys of all are written before any is read, so a later one sees those of the earlier.

    Two requests with 1 and 3 new tokens and 130 and 0 cached ones, pages of 128:
    cu_seqlens_q [0, 1, 4], kv_lens [131, 3], page_table [[2, 5], [7, 0]], positions [130, 0, 1, 2],
    slot_mapping [642, 896, 897, 898], num_decodes 1, max_query_len 3.
    """

    positions: Tensor
    """[T] int32, absolute position of each new token"""
    cu_seqlens_q: Tensor
    """[B + 1] int32, prefix sum of new tokens per request"""
    kv_lens: Tensor
    """[B] int32, keys of each request once this step's are written; its queries are the last ones.
    0: a request that fills up a batch, whose one query gives zeros"""
    page_table: Tensor
    """[B, max_pages] int32, pages of full-attention layers in order; unused entries are 0"""
    slot_mapping: Tensor
    """[T] int32, page * page_size + offset where key and value are written, -1 = nowhere"""
    window_page_table: Tensor
    """[B, max_pages] int32, pages of sliding layers; those of pages that no query of this step can
    see are stale and never read"""
    window_slot_mapping: Tensor
    """[T] int32, slot_mapping of sliding layers"""
    num_decodes: int
    """the first num_decodes requests have one query each"""
    max_query_len: int
    """new tokens of the longest of the other requests; 0 if there is none"""

    def pages_of(self, window: int | None) -> Tensor:
        """The page table that a layer with this window reads."""
        return self.page_table if window is None else self.window_page_table

    def slots_of(self, window: int | None) -> Tensor:
        """Where a layer with this window writes."""
        return self.slot_mapping if window is None else self.window_slot_mapping
