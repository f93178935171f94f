"""The server's tokenizer, read while the engine process loads the weights: it takes a second."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from threading import Lock, Thread

from haast.harmony import Tokenizer
from haast.harmony.tokenizer import TokenizerError
from haast.serve.messages import Found, Progress

_reading = Lock()
_read = cache(Tokenizer)


def tokenizer_of(path: str) -> Tokenizer:
    """The tokenizer of a file, read once. Raises TokenizerError."""
    with _reading:
        return _read(path)


def read_ahead(path: str) -> None:
    """Have a thread read it; whoever asks for it meanwhile waits for that one."""
    Thread(target=_try_to_read, args=(path,), daemon=True).start()


def _try_to_read(path: str) -> None:
    with suppress(TokenizerError):  # `tokenizer_of` will tell
        tokenizer_of(path)


def while_loading(
    progress: Callable[[int, int], None] | None,
) -> Callable[[Found | Progress], None]:
    """What to do with messages of an engine that loads: its tokenizer is read ahead.

    progress  called with bytes loaded and bytes in all
    """

    def hear(message: Found | Progress) -> None:
        if isinstance(message, Found):
            read_ahead(message.tokenizer)
        elif progress is not None:
            progress(message.done, message.total)

    return hear
