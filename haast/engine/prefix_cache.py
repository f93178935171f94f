"""Finds pages that an earlier request computed for the same prefix. Pure Python."""

import secrets
from array import array
from hashlib import blake2b

from haast.engine.pages import PagePool
from haast.engine.request import Request

KEY_BYTES = 16


class PrefixCache:
    """Names complete pages by a hash chain over the salt and all tokens up to the page's end.

    A key of 128 bits stands for the tokens; they are not compared. Two of 2^40 pages share one by
    chance with a probability of 2^-49. Nor can a user search for such a pair: every chain starts
    from a secret of this process, so that nobody outside can compute a key.

    Both pools know a page by the same key, but lose it on their own: pages of the sliding pool that
    left every window are used up sooner.

    is_enabled  False: only requests of one call share pages, those of its prompt
    """

    def __init__(
        self, full: PagePool, sliding: PagePool, page_size: int, window: int, is_enabled: bool
    ) -> None:
        self.full = full
        self.sliding = sliding
        self.page_size = page_size
        self.window = window
        self.is_enabled = is_enabled
        self._secret = secrets.token_bytes(KEY_BYTES)

    def window_start(self, position: int) -> int:
        """First page that the query at a position sees in a sliding layer."""
        return max(0, position - self.window + 1) // self.page_size

    def hit(self, request: Request) -> tuple[list[int], list[int]]:
        """Pages to share: full ones for [0, p), sliding ones for the window before p.

        p = page_size x the number of full pages is as large as both pools allow while at least one
        token is left to compute.
        """
        if not self._serves(request):
            return [], []
        pages: list[int] = []
        for index in range((request.num_tokens - 1) // self.page_size):
            page = self.full.find(self._key(request, index))
            if page is None:
                break
            pages.append(page)
        while pages:
            window_pages = self._window_pages(request, len(pages))
            if window_pages is not None:
                return pages, window_pages
            pages.pop()
        return [], []

    def register(self, request: Request) -> None:
        """Name its complete pages that are not named yet.

        A launched step counts as computed: whoever finds the page reads it in a later step, and the
        device runs steps in order. If one fails the engine clears the cache.
        """
        complete = min(request.num_computed, request.num_tokens) // self.page_size
        if complete <= request.num_named or not self._serves(request):
            return
        for index in range(request.num_named, complete):
            key = self._key(request, index)
            self.full.name(request.pages[index], key)
            window_page = request.window_pages[index]
            if window_page is not None:
                self.sliding.name(window_page, key)
        request.num_named = complete

    def clear(self) -> None:
        self.full.forget_keys()
        self.sliding.forget_keys()

    def _serves(self, request: Request) -> bool:
        return self.is_enabled or request.has_siblings

    def _window_pages(self, request: Request, num_pages: int) -> list[int] | None:
        """Sliding pages that the query after that many pages sees; None if one is gone."""
        found = []
        for index in range(self.window_start(num_pages * self.page_size), num_pages):
            page = self.sliding.find(self._key(request, index))
            if page is None:
                return None
            found.append(page)
        return found

    def _key(self, request: Request, index: int) -> bytes:
        keys = request.page_keys
        while len(keys) <= index:
            start = len(keys) * self.page_size
            tokens = array("i", request.token_ids(start, start + self.page_size)).tobytes()
            before = keys[-1] if keys else self._root(request.salt)
            keys.append(blake2b(before + tokens, digest_size=KEY_BYTES).digest())
        return keys[index]

    def _root(self, salt: str | None) -> bytes:
        text = b"" if salt is None else b"=" + salt.encode()
        return blake2b(text, digest_size=KEY_BYTES, key=self._secret).digest()
