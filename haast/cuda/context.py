"""The driver's context of a thread, and what its calls answer."""

import threading
from typing import Any

from haast.errors import HaastError

_thread = threading.local()


class KernelError(HaastError):
    """A kernel that cannot be loaded or launched."""


def check(result: tuple[Any, ...], what: str) -> Any:
    """The value of a driver call. Raises KernelError."""
    if result[0]:
        raise KernelError(f"{what}: {result[0].name}")
    return result[1] if len(result) == 2 else None


def bind_thread(driver: Any, device: int) -> None:
    """A thread in which torch has done no CUDA work has no context, and the driver wants one.

    driver  cuda.bindings.driver
    Raises KernelError.
    """
    if getattr(_thread, "is_bound", False):
        return
    if not int(check(driver.cuCtxGetCurrent(), "no CUDA context")):
        index = check(driver.cuDeviceGet(device), f"device {device}")
        context = check(driver.cuDevicePrimaryCtxRetain(index), f"context of device {device}")
        check(driver.cuCtxSetCurrent(context), f"context of device {device}")
    _thread.is_bound = True
