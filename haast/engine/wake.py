"""A quick start: a GPU wakes while Python imports torch, and nobody looks for garbage meanwhile."""

import ctypes
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

DRIVER = "libcuda.so.1"


def wake(devices: str | None) -> Thread | None:
    """Have a thread make the context that torch will use; to be called before torch is imported.

    devices  the wish, as `haast.engine.device.pick_device` takes it
    returns  the thread, None where no one GPU is wished for. What fails is left for torch to tell
    """
    match = re.fullmatch(r"(?:gpu(?::(\d+))?)?", devices or "")
    if match is None:
        return None
    thread = Thread(target=_make_context, args=(int(match[1] or 0),), daemon=True)
    thread.start()
    return thread


@contextmanager
def importing() -> Iterator[None]:
    """Nobody looks for garbage in what a process of our own imports, then or later.

    It is some 200,000 objects that stay. Python looks at them again and again as they become more:
    0.14 of the 0.83 s that torch's import took on a CPU, and 0.09 s more for once at the end.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _make_context(index: int) -> None:
    """The device's primary context, which lives as long as the process; ctypes holds no lock."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return
    device, context = ctypes.c_int(), ctypes.c_void_p()
    if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), index) == 0:
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
