"""Compiling: calls that wait for their grammars, beside an engine that goes on."""

from collections.abc import Container
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

from haast.engine.masks import Grammars
from haast.serve.messages import Submit


class Compiling:
    """Has grammars compiled in a thread; most are there already or within milliseconds.

    grammars  None = no call has to wait, and the engine refuses those with a grammar
    """

    def __init__(self, grammars: Grammars | None) -> None:
        self._grammars = grammars
        self._calls: list[tuple[Submit, Future[None]]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def warm(self) -> None:
        """Have the thread read the vocabulary, before a grammar needs it."""
        if self._grammars is not None:
            self._thread.submit(self._grammars.warm)

    @property
    def num_answers(self) -> int:
        """Of all calls that wait."""
        return sum(call.params.n for call, _ in self._calls)

    def must_wait(self, call: Submit) -> bool:
        """Whether the grammar of a call has yet to be compiled."""
        text, grammars = call.params.grammar, self._grammars
        return not (text is None or grammars is None or grammars.is_compiled(text))

    def add(self, call: Submit) -> None:
        """Have a call wait that must; `take` gives it back."""
        assert self._grammars is not None, call
        done = self._thread.submit(self._grammars.compile, call.params.grammar or "")
        self._calls.append((call, done))

    def cancel(self, numbers: Container[int]) -> None:
        """Forget waiting calls all of whose answers are among these, and their grammars."""
        waiting = []
        for call, done in self._calls:
            if all(call.number + index in numbers for index in range(call.params.n)):
                done.cancel()  # nothing happens if it is under way
            else:
                waiting.append((call, done))
        self._calls = waiting

    def take(self) -> list[tuple[Submit, str | None]]:
        """Calls that need not wait any more, in their order, and what is wrong with the grammar of
        each: to find it out again would take the engine's time.
        """
        ready: list[tuple[Submit, str | None]] = []
        waiting = []
        for call, done in self._calls:
            if done.done():  # asked once: it may become so at any time
                error = done.exception()
                ready.append((call, None if error is None else str(error)))
            else:
                waiting.append((call, done))
        self._calls = waiting
        return ready

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "grammars")
