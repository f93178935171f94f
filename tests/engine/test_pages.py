"""PagePool against a plain model, and by name."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from haast.engine.pages import PagePool

NUM_PAGES = 5
KEYS = [bytes([i]) for i in range(7)]
ANY = st.integers(0, 1 << 20)


class PagesMachine(RuleBasedStateMachine):
    """The model: users of each page, its key, and the order in which pages became cached."""

    def __init__(self):
        super().__init__()
        self.pool = PagePool(NUM_PAGES, "test")
        self.users = dict.fromkeys(range(NUM_PAGES), 0)
        self.key_of = {}
        self.cached = []

    def held(self):
        return [page for page, users in self.users.items() if users]

    def free(self):
        return [p for p, users in self.users.items() if not users and p not in self.cached]

    @precondition(lambda self: self.free() or self.cached)
    @rule()
    def allocate(self):
        free = self.free()
        page = self.pool.allocate()
        if free:
            assert page in free
        else:
            assert page == self.cached.pop(0), "the least recently used one"
            del self.key_of[page]
        self.users[page] = 1

    @precondition(lambda self: self.held() or self.cached)
    @rule(choice=ANY)
    def share(self, choice):
        pages = sorted(self.held() + self.cached)
        page = pages[choice % len(pages)]
        self.pool.share(page)
        self.users[page] += 1
        if page in self.cached:
            self.cached.remove(page)

    @precondition(lambda self: self.held())
    @rule(choice=ANY)
    def let_go(self, choice):
        page = self.held()[choice % len(self.held())]
        self.pool.free(page)
        self.users[page] -= 1
        if not self.users[page] and page in self.key_of:
            self.cached.append(page)

    @precondition(lambda self: self.held())
    @rule(choice=ANY, key=st.sampled_from(KEYS))
    def name(self, choice, key):
        page = self.held()[choice % len(self.held())]
        self.pool.name(page, key)
        if page not in self.key_of and key not in self.key_of.values():
            self.key_of[page] = key

    @rule()
    def forget_keys(self):
        self.pool.forget_keys()
        self.key_of, self.cached = {}, []

    @invariant()
    def agrees(self):
        self.pool.check()
        assert self.pool.num_held == len(self.held())
        assert self.pool.num_cached == len(self.cached)
        assert self.pool.num_free == len(self.free())
        assert self.pool.num_available == len(self.free()) + len(self.cached)
        assert self.pool.count_cached(range(NUM_PAGES)) == NUM_PAGES - len(self.held())
        pages = {key: page for page, key in self.key_of.items()}
        assert [self.pool.find(key) for key in KEYS] == [pages.get(key) for key in KEYS]


def test_against_a_model():
    limits = settings(max_examples=150, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(PagesMachine, settings=limits)


def test_cached_pages_go_least_recently_freed_first():
    pool = PagePool(3, "full")
    pages = [pool.allocate() for _ in range(3)]
    for page, key in zip(pages, (b"parent", b"child", b"leaf"), strict=True):
        pool.name(page, key)
    for page in reversed(pages):
        pool.free(page)
    assert pool.num_cached == 3 and pool.num_free == 0
    assert [pool.allocate() for _ in range(3)] == pages[::-1]


def test_what_was_used_again_goes_last():
    pool = PagePool(2, "full")
    pages = [pool.allocate(), pool.allocate()]
    for page in pages:
        pool.name(page, bytes([page]))
        pool.free(page)
    pool.share(pages[0])
    pool.free(pages[0])
    assert [pool.allocate(), pool.allocate()] == pages[::-1]


@pytest.mark.parametrize("spoil", ["twice", "unheld", "empty"])
def test_misuse_is_an_assertion_with_the_page(spoil):
    pool = PagePool(1, "sliding")
    page = pool.allocate()
    with pytest.raises(AssertionError, match="sliding pool"):
        if spoil == "empty":
            pool.allocate()
        pool.free(page)
        pool.free(page) if spoil == "twice" else pool.name(page, b"")


def test_lost_pages_are_counted():
    pool = PagePool(4, "full")
    pool.allocate()
    pool._free.pop()
    with pytest.raises(RuntimeError) as error:
        pool.check()
    assert str(error.value) == (
        "the full pool lost count of its pages: 2 free + 1 held + 0 cached are not 4"
    )
