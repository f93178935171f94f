"""KVPages: gives requests pages of both KV pools and takes them back. Pure Python."""

from haast.engine.pages import PagePool
from haast.engine.prefix_cache import PrefixCache
from haast.engine.request import Request


class KVPages:
    """Two pools of pages: of full-attention layers, which need every position of a request, and of
    sliding layers, which need those in the window of the next query and later ones.

    Pages given back may be allocated at once even if a launched step still reads them: the device
    runs steps in order, and the new owner writes in a later one.

    full, sliding       the pools
    page_size           positions a page
    window              keys visible to a query of a sliding layer, itself included
    is_prefix_caching   whether requests share pages of equal prefixes
    """

    def __init__(
        self,
        full: PagePool,
        sliding: PagePool,
        page_size: int,
        window: int,
        is_prefix_caching: bool = True,
    ) -> None:
        self.full = full
        self.sliding = sliding
        self.page_size = page_size
        self.window = window
        self.prefixes = PrefixCache(full, sliding, page_size, window, is_prefix_caching)
        self.window_span = (window + page_size - 2) // page_size + 1
        """most pages that a window reaches into"""

    def pages_for(self, num_positions: int) -> int:
        return -(-num_positions // self.page_size)

    def admit(self, request: Request, reserve: int, window_reserve: int) -> bool:
        """Give a request what its known tokens need: found pages, and all further full ones.

        Full pages are taken at once so that a prompt never stops halfway for want of them; sliding
        ones come chunk by chunk, and there is one for the first.

        reserve, window_reserve  pages that must remain available for others
        returns                  False, with nothing changed, if pages are short
        """
        if self.full.num_available <= reserve or self.sliding.num_available <= window_reserve:
            return False
        pages, window_pages = self.prefixes.hit(request)
        missing = self.pages_for(request.num_tokens) - len(pages)
        available = self.full.num_available - self.full.count_cached(pages)
        window_available = self.sliding.num_available - self.sliding.count_cached(window_pages)
        if available - missing < reserve or window_available - 1 < window_reserve:
            return False
        for page in pages:
            self.full.share(page)
        for page in window_pages:
            self.sliding.share(page)
        request.window_start = len(pages) - len(window_pages)
        request.window_pages = [None] * request.window_start + window_pages
        request.num_named = len(pages)
        request.num_computed = len(pages) * self.page_size
        request.pages = pages + [self.full.allocate() for _ in range(missing)]
        return True

    def room(self, request: Request, window_reserve: int) -> int:
        """How many next tokens of an admitted request have, or can get, sliding pages."""
        self._slide(request)
        pages = max(0, self.sliding.num_available - window_reserve)
        return (len(request.window_pages) + pages) * self.page_size - request.num_computed

    def extend(self, request: Request, stop: int) -> bool:
        """See to pages for the next tokens, up to position `stop`; False if there are too few.

        Names pages that are complete and frees those that left the window either way.
        """
        self.prefixes.register(request)
        self._slide(request)
        count = self.pages_for(stop)
        missing = count - len(request.pages)
        window_missing = count - len(request.window_pages)
        if missing > self.full.num_available or window_missing > self.sliding.num_available:
            return False
        for _ in range(missing):
            request.pages.append(self.full.allocate())
        for _ in range(window_missing):
            request.window_pages.append(self.sliding.allocate())
        request.next_event = min(
            len(request.window_pages) * self.page_size,
            (request.window_start + 1) * self.page_size + self.window - 1,
        )
        return True

    def release(self, request: Request) -> None:
        """Take all its pages back; complete ones can still be found."""
        self.prefixes.register(request)
        for page in reversed(request.pages):
            self.full.free(page)
        for window_page in reversed(request.window_pages[request.window_start :]):
            assert window_page is not None, request
            self.sliding.free(window_page)
        request.pages, request.window_pages = [], []
        request.window_start = request.num_computed = request.num_named = request.next_event = 0

    def check(self) -> None:
        """Raise RuntimeError unless each pool knows where all of its pages are."""
        self.full.check()
        self.sliding.check()

    def check_idle(self) -> None:
        """The same when no request is there to hold a page."""
        self.check()
        for pool in (self.full, self.sliding):
            if held := pool.num_held:
                raise RuntimeError(
                    f"no request is left, but {held} of {pool.num_pages} pages of the "
                    f"{pool.label} pool are held ({pool.num_free} free, {pool.num_cached} cached)"
                )

    def _slide(self, request: Request) -> None:
        """Free sliding pages that no later query sees."""
        start = self.prefixes.window_start(request.num_computed)
        if start <= request.window_start:
            return
        window_pages = request.window_pages
        for index in range(request.window_start, start):
            page = window_pages[index]
            assert page is not None, request
            self.sliding.free(page)
            window_pages[index] = None
        request.window_start = start
