"""PagePool: which pages of one KV pool are free, held or cached. Pure Python."""

from collections import OrderedDict
from collections.abc import Iterable


class PagePool:
    """Pages 0 … num_pages - 1, each in one of three states.

    held    one or more requests use it, counted
    cached  nobody does, but it has a key and its content can be found by that
    free    nobody does, and its content is of no use

    Cached pages are given away, least recently freed first, when no free ones are left. Whoever
    frees a request's pages from the last to the first thereby has leaves of a chain of keys go
    before their parents.
    """

    def __init__(self, num_pages: int, label: str) -> None:
        self.num_pages = num_pages
        self.label = label
        self._free = list(range(num_pages - 1, -1, -1))
        self._num_users = [0] * num_pages
        self._key_of: list[bytes | None] = [None] * num_pages
        self._page_of: dict[bytes, int] = {}
        # Not a dict: popping the oldest of a large dict walks over all that were popped before.
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_cached(self) -> int:
        return len(self._cached)

    @property
    def num_available(self) -> int:
        """Pages that can be allocated: free and cached ones."""
        return len(self._free) + len(self._cached)

    @property
    def num_held(self) -> int:
        """Counted page by page."""
        return sum(1 for users in self._num_users if users)

    def allocate(self) -> int:
        """A page for one user, its content undefined; there must be one available."""
        if self._free:
            page = self._free.pop()
        else:
            assert self._cached, f"the {self.label} pool of {self.num_pages} pages has none left"
            page, _ = self._cached.popitem(last=False)
            self._forget_key(page)
        self._num_users[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more user of a held or cached page."""
        if self._num_users[page] == 0:
            del self._cached[page]
        self._num_users[page] += 1

    def free(self, page: int) -> None:
        """One user fewer; without any the page is cached if it has a key, else free."""
        users = self._num_users[page] - 1
        assert users >= 0, f"page {page} of the {self.label} pool is freed twice"
        self._num_users[page] = users
        if users:
            return
        if self._key_of[page] is None:
            self._free.append(page)
        else:
            self._cached[page] = None

    def name(self, page: int, key: bytes) -> None:
        """Let a held page be found by a key; if another page has that key, nothing changes."""
        assert self._num_users[page], f"page {page} of the {self.label} pool is not held"
        if key not in self._page_of and self._key_of[page] is None:
            self._page_of[key] = page
            self._key_of[page] = key

    def find(self, key: bytes) -> int | None:
        """The held or cached page with that key."""
        return self._page_of.get(key)

    def count_cached(self, pages: Iterable[int]) -> int:
        """How many of some pages nobody uses."""
        return sum(1 for page in pages if not self._num_users[page])

    def forget_keys(self) -> None:
        """Nothing is found any more; cached pages become free, held ones stay held."""
        for page in list(self._page_of.values()):
            self._forget_key(page)
        self._free += self._cached
        self._cached.clear()

    def check(self) -> None:
        """Raise RuntimeError unless free + held + cached pages are all pages."""
        free, held, cached = self.num_free, self.num_held, self.num_cached
        if free + held + cached != self.num_pages:
            raise RuntimeError(
                f"the {self.label} pool lost count of its pages: {free} free + {held} held + "
                f"{cached} cached are not {self.num_pages}"
            )

    def _forget_key(self, page: int) -> None:
        key = self._key_of[page]
        assert key is not None, (self.label, page)
        del self._page_of[key]
        self._key_of[page] = None
