"""How many pages each pool of the KV cache gets. Pure Python."""

from dataclasses import dataclass

from haast.config import ConfigError

CACHED_SHARE = 16
"""The sliding pool has a page for this many full pages besides those that running requests hold, so
that a prefix is still found when its window was left: it takes a page or two at its end, one in 16
of a conversation of 4,000 tokens. They take 6% of the memory that the full pages take."""
ROUNDS = 2
"""Full pages for this many batches of full length at most: one that runs, and as much again for
cached prefixes"""


@dataclass(frozen=True)
class KVPlan:
    """Pages of both pools, and what they are good for.

    max_batch_size   requests that may run together; fewer than wished for if memory is short
    naive_bytes      what as many positions would take if sliding layers kept them all, too
    num_full_length  requests of max_length that fit at once
    """

    num_pages: int
    num_window_pages: int
    max_batch_size: int
    kv_bytes: int
    naive_bytes: int
    num_full_length: int


@dataclass(frozen=True)
class KVSizes:
    """What a page costs and a request needs.

    page_bytes, window_page_bytes  of a page over all full-attention, or all sliding, layers
    window                         keys visible to a query of a sliding layer, itself included
    """

    page_bytes: int
    window_page_bytes: int
    window: int
    page_size: int

    @property
    def request_window_pages(self) -> int:
        """Sliding pages that a request holds at most, its chunk apart."""
        return self.pages_for(self.window) + 1

    def pages_for(self, num_positions: int) -> int:
        return -(-num_positions // self.page_size)

    def window_pages(self, num_pages: int, num_running: int) -> int:
        """Sliding pages beside so many full ones where running requests hold up to `num_running`;
        never more than full ones, since who holds a sliding page holds a full one as well.
        """
        return min(num_pages, num_running - (-num_pages // CACHED_SHARE))

    def bytes(self, num_pages: int, num_running: int) -> int:
        """Of both pools."""
        num_window_pages = self.window_pages(num_pages, num_running)
        return num_pages * self.page_bytes + num_window_pages * self.window_page_bytes

    def most_pages(self, budget_bytes: int, num_running: int) -> int:
        """Full pages that a budget buys, 0 or less if none."""
        equal = budget_bytes // (self.page_bytes + self.window_page_bytes)
        if self.window_pages(equal, num_running) == equal:
            return equal
        left = budget_bytes - num_running * self.window_page_bytes
        count = left * CACHED_SHARE // (self.page_bytes * CACHED_SHARE + self.window_page_bytes)
        while count > 0 and self.bytes(count, num_running) > budget_bytes:
            count -= 1
        return count

    def longest(self, budget_bytes: int) -> int:
        """Positions of the longest request that fits alone, 0 if none does."""
        return max(0, self.most_pages(budget_bytes, self.request_window_pages)) * self.page_size


def plan_kv(
    sizes: KVSizes,
    budget_bytes: int,
    max_batch_size: int,
    max_length: int,
    max_batch_input_tokens: int,
) -> KVPlan:
    """Divide memory between full-attention and sliding layers.

    The sliding pool has ceil(window / page_size) + 1 pages a request, those of the chunks of one
    step, and one for every CACHED_SHARE full pages; full pages get the rest, but not more than
    ROUNDS batches of full length need. Where one request of max_length would not fit, the chunks'
    pages go first, so that chunks take what is free, and then one request after the other.
    Raises ConfigError, in one line, if one request of max_length does not fit alone.
    """
    length_pages = sizes.pages_for(max_length)
    each = sizes.request_window_pages
    chunks = sizes.pages_for(min(max_batch_input_tokens, max_batch_size * max_length))
    choices = [(max_batch_size, max_batch_size * each + chunks)]
    choices += [(batch, batch * each) for batch in range(max_batch_size, 0, -1)]
    fitting = (c for c in choices if sizes.most_pages(budget_bytes, c[1]) >= length_pages)
    batch, num_running = next(fitting, (0, 0))
    if not batch:
        raise ConfigError(_too_little(sizes, budget_bytes, max_length))
    most = sizes.most_pages(budget_bytes, num_running)
    num_pages = min(most, ROUNDS * batch * length_pages)
    return KVPlan(
        num_pages=num_pages,
        num_window_pages=sizes.window_pages(num_pages, num_running),
        max_batch_size=batch,
        kv_bytes=sizes.bytes(num_pages, num_running),
        naive_bytes=num_pages * (sizes.page_bytes + sizes.window_page_bytes),
        num_full_length=num_pages // length_pages,
    )


def _too_little(sizes: KVSizes, budget_bytes: int, max_length: int) -> str:
    needed = sizes.bytes(sizes.pages_for(max_length), sizes.request_window_pages)
    longest = sizes.longest(budget_bytes)
    lower = f"lower max_length to {longest}, " if longest else ""
    return (
        f"memory is short: the KV cache of one request of {max_length} tokens takes "
        f"{needed / 1e9:.2f} GB, but {max(0, budget_bytes) / 1e9:.2f} GB is left for it; "
        f"{lower}raise device_memory_utilization or free memory on the device"
    )
