"""Launches our cubins on torch's stream through the CUDA driver."""

import ctypes
import struct
import threading
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from haast.cuda.build import CUBINS, HOW, why_not_built
from haast.cuda.context import KernelError, bind_thread, check

Argument = Tensor | int | float | bytes | None
Grid = int | tuple[int, int, int]
Value = int | float | bytes
MAP_BYTES = 128
"""of a tensor map, the one parameter passed by value that is larger than 8 bytes"""
DEFAULT_SHARED_BYTES = 48 * 1024
"""What a kernel may ask for without being told that it may have more"""


_finding = threading.Lock()


def launch(
    module: str,
    symbol: str,
    *,
    grid: Grid,
    block: int,
    shared_bytes: int,
    args: Sequence[Argument],
    stream: torch.cuda.Stream | None = None,
) -> None:
    """Start one kernel of cubins/<module>.cubin on the device of its tensors; does not wait.

    grid          CTAs: a number, or (x, y, z)
    block         threads of a CTA
    shared_bytes  dynamic shared memory of a CTA
    args          Tensor: its address; None: null; int: int32; float: float32; bytes: a tensor map
    stream        None: torch's current one of that device
    The kernel may start before the previous one of the stream has ended (programmatic dependent
    launch): it has to wait itself before it touches what that one writes or reads. Works under
    CUDA graph capture once the symbol has run before; its first run loads the module.
    Raises KernelError: not built, no such symbol, arguments of a wrong kind, or refused by the
    driver. What goes wrong inside the kernel shows at a later synchronization, as always.
    """
    device, kinds, values = _unpack(symbol, args)
    handle = stream.cuda_stream if stream else torch._C._cuda_getCurrentRawStream(device)
    grid = grid if isinstance(grid, tuple) else (grid, 1, 1)
    if device == torch.cuda.current_device():
        bind_thread(_driver(), device)
        _found(module, symbol, device).launch(grid, block, shared_bytes, kinds, values, handle)
    else:
        with torch.cuda.device(device):
            _found(module, symbol, device).launch(grid, block, shared_bytes, kinds, values, handle)


@cache
def multiprocessors(device: torch.device | int) -> int:
    """SMs of a GPU."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _unpack(symbol: str, args: Sequence[Argument]) -> tuple[int, list[str], list[Value]]:
    """Index of the one GPU that holds all tensors; struct formats of 8-byte slots; their values."""
    device = None
    kinds: list[str] = []
    values: list[Value] = []
    for arg in args:
        if arg is None:
            kinds.append("Q")
            values.append(0)
        elif isinstance(arg, bytes):
            kinds.append(f"{len(arg)}s")
            values.append(arg)
        elif isinstance(arg, int | float):
            kinds.append("f4x" if isinstance(arg, float) else "i4x")
            values.append(arg)
        else:
            kinds.append("Q")
            values.append(arg.data_ptr())
            index = arg.get_device()
            if index != device:
                if device is not None or index < 0:
                    raise KernelError(f"{symbol}: its tensors are not all on one GPU")
                device = index
    if device is None:
        raise KernelError(f"{symbol}: no argument is a tensor, which would say on what GPU to run")
    return device, kinds, values


@cache
def _driver() -> Any:
    """cuda-bindings, not before a kernel is wanted: importing haast touches no GPU."""
    from cuda.bindings import driver

    return driver


@cache
def _library(module: str) -> Any:
    """A cubin in the driver's hands; it serves all devices."""
    path = CUBINS / f"{module}.cubin"
    if not path.is_file():
        raise KernelError(why_not_built() or f"there is no {path.name}")
    driver = _driver()
    result = driver.cuLibraryLoadData(path.read_bytes(), [], [], 0, [], [], 0)
    return check(result, f"{path.name} does not load ({_needs(driver)})")


def _needs(driver: Any) -> str:
    version = driver.cuDriverGetVersion()[1]
    major, minor = torch.cuda.get_device_capability()
    return (
        "it needs compute capability 9.0 and driver 580 or newer, which is CUDA 13.0; here is "
        f"{major}.{minor} and CUDA {version // 1000}.{version % 1000 // 10}"
    )


def _found(module: str, symbol: str, device: int) -> "_Kernel":
    """One object for a kernel, also if two threads ask for it at once."""
    with _finding:
        return _kernel(module, symbol, device)


@cache
def _kernel(module: str, symbol: str, device: int) -> "_Kernel":
    """A kernel ready to run on the current device."""
    driver = _driver()
    library = _library(module)
    result = driver.cuLibraryGetKernel(library, symbol.encode())
    why = f"{module}.cubin has no kernel {symbol}, or is damaged (build it again: {HOW})"
    kernel = check(result, why)
    # Unlike cuLibraryGetKernel this loads the code now, which would break a capture later.
    function = check(driver.cuKernelGetFunction(kernel), f"{module}.cubin {symbol} does not load")
    return _Kernel(driver, symbol, kernel, function, device)


class _Kernel:
    """One function on one device, with the objects of a launch made once and filled each time."""

    def __init__(self, driver: Any, symbol: str, kernel: Any, function: Any, device: int) -> None:
        self.driver = driver
        self.symbol = symbol
        self.kernel = kernel
        self.function = function
        self.device = device
        self.allowed_shared = DEFAULT_SHARED_BYTES
        self.config = driver.CUlaunchConfig()
        value = driver.CUlaunchAttributeValue()
        value.programmaticStreamSerializationAllowed = 1
        attribute = driver.CUlaunchAttribute()
        ids = driver.CUlaunchAttributeID
        attribute.id = ids.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        attribute.value = value
        self.config.attrs = [attribute]
        self.config.numAttrs = 1
        self.shape: tuple[object, ...] | None = None
        self.sizes = _parameter_sizes(driver, kernel)
        ends = list(accumulate(max(8, size) for size in self.sizes))
        self.slots = (ctypes.c_char * (ends or [0])[-1])()
        base = ctypes.addressof(self.slots)
        self.pointers = (ctypes.c_void_p * len(self.sizes))(
            *(base + start for start in [0, *ends][: len(self.sizes)])
        )
        self.kinds: list[str] | None = None
        self.format = ""
        self.lock = threading.Lock()

    def launch(
        self,
        grid: tuple[int, int, int],
        block: int,
        shared_bytes: int,
        kinds: list[str],
        values: list[Value],
        stream: int,
    ) -> None:
        with self.lock:
            if shared_bytes > self.allowed_shared:
                self._allow_shared(shared_bytes)
            if self.shape != (grid, block, shared_bytes, stream):
                self._set_shape(grid, block, shared_bytes, stream)
            self._pack(kinds, values)
            pointers = ctypes.addressof(self.pointers)
            result = self.driver.cuLaunchKernelEx(self.config, self.function, pointers, 0)
        if result[0]:
            raise KernelError(f"{self._at(grid, block, shared_bytes)}: {result[0].name}")

    def _at(self, grid: tuple[int, int, int], block: int, shared_bytes: int) -> str:
        return f"launch of {self.symbol}, grid {grid}, block {block}, {shared_bytes} shared bytes"

    def _set_shape(
        self, grid: tuple[int, int, int], block: int, shared_bytes: int, stream: int
    ) -> None:
        config = self.config
        try:
            config.gridDimX, config.gridDimY, config.gridDimZ = grid
            config.blockDimX, config.blockDimY, config.blockDimZ = block, 1, 1
            config.sharedMemBytes = shared_bytes
        except OverflowError:
            self.shape = None
            at = self._at(grid, block, shared_bytes)
            raise KernelError(f"{at}: a number is negative or too large") from None
        config.hStream = stream
        self.shape = (grid, block, shared_bytes, stream)

    def _allow_shared(self, shared_bytes: int) -> None:
        driver = self.driver
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        device = check(driver.cuDeviceGet(self.device), f"device {self.device}")
        result = driver.cuKernelSetAttribute(attribute, shared_bytes, self.kernel, device)
        check(result, f"{self.symbol} cannot have {shared_bytes} shared bytes")
        self.allowed_shared = shared_bytes

    def _pack(self, kinds: list[str], values: list[Value]) -> None:
        """Values into their slots, one a parameter."""
        if kinds != self.kinds:
            self._check_sizes(kinds)
        try:
            struct.pack_into(self.format, self.slots, 0, *values)
        except (struct.error, OverflowError) as error:
            raise KernelError(f"{self.symbol}: arguments {values} do not pack: {error}") from None

    def _check_sizes(self, kinds: list[str]) -> None:
        """The driver copies what the kernel declares, whether or not it was given."""
        sizes = {"Q": 8, f"{MAP_BYTES}s": MAP_BYTES}
        given = [sizes.get(kind, 4) for kind in kinds]
        if given != self.sizes:
            raise KernelError(
                f"{self.symbol} takes parameters of {self.sizes} bytes, not arguments of {given}"
            )
        self.kinds = kinds
        self.format = "<" + "".join(kinds)


def _parameter_sizes(driver: Any, kernel: Any) -> list[int]:
    """Bytes of each parameter of a kernel."""
    sizes: list[int] = []
    while not (result := driver.cuKernelGetParamInfo(kernel, len(sizes)))[0]:
        sizes.append(result[2])
    return sizes
