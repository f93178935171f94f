"""The launcher, with a driver that only writes down what it is asked."""

import ctypes
import struct
import sys
import threading
import types
from contextlib import nullcontext
from enum import IntEnum
from types import SimpleNamespace

import pytest
import torch

from haast.cuda import context, launcher
from haast.cuda.launcher import KernelError, launch, multiprocessors
from haast.errors import HaastError

SIZES = [8, 8, 4, 4]
"""Of the parameters of the fake kernel"""


class Result(IntEnum):
    SUCCESS = 0
    CUDA_ERROR_NOT_FOUND = 500
    CUDA_ERROR_INVALID_VALUE = 1


class FakeDriver:
    """The part of cuda.bindings.driver that launches; `fails` names a call that does not work."""

    CUlaunchConfig = CUlaunchAttribute = CUlaunchAttributeValue = SimpleNamespace
    CUlaunchAttributeID = SimpleNamespace(
        CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION="overlap"
    )
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")

    def __init__(self):
        self.calls = []
        self.launches = []
        self.fails = None
        self.context = 0

    def cuCtxGetCurrent(self):
        return Result.SUCCESS, self.context

    def cuCtxSetCurrent(self, context):
        self.context = context
        return (Result.SUCCESS,)

    def __getattr__(self, name):
        def call(*args):
            self.calls.append((name, *args))
            return (Result.CUDA_ERROR_NOT_FOUND if self.fails == name else Result.SUCCESS, name)

        return call

    def cuKernelGetParamInfo(self, kernel, index):
        return (Result.SUCCESS, 0, SIZES[index]) if index < len(SIZES) else (Result(1), 0, 0)

    def cuDriverGetVersion(self):
        return Result.SUCCESS, 12040

    def cuKernelSetAttribute(self, *args):
        self.calls.append(args)
        return (Result(1) if self.fails == "cuKernelSetAttribute" else Result.SUCCESS,)

    def cuLaunchKernelEx(self, config, function, pointers, extra):
        slots = (ctypes.c_void_p * len(SIZES)).from_address(pointers)
        values = [ctypes.string_at(at, size) for at, size in zip(slots, SIZES, strict=True)]
        self.launches.append((dict(vars(config)), function, values, extra))
        return (Result.CUDA_ERROR_INVALID_VALUE if self.fails == "launch" else Result.SUCCESS,)


class OnGpu(torch.Tensor):
    """A CPU tensor that says it is on a GPU."""

    def get_device(self):
        return getattr(self, "index", 0)


def on_gpu(index=0):
    tensor = torch.zeros(4).as_subclass(OnGpu)
    tensor.index = index
    return tensor


@pytest.fixture
def driver(monkeypatch, tmp_path):
    fake = FakeDriver()
    (tmp_path / "one.cubin").write_bytes(b"code")
    monkeypatch.setattr(launcher, "CUBINS", tmp_path)
    monkeypatch.setattr(launcher, "why_not_built", lambda: None)
    monkeypatch.setattr(launcher, "_driver", lambda: fake)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda i: 70 + i, raising=False)
    monkeypatch.setattr(context, "_thread", threading.local())
    for cached in (launcher._library, launcher._kernel, multiprocessors):
        cached.cache_clear()
    yield fake
    for cached in (launcher._library, launcher._kernel, multiprocessors):
        cached.cache_clear()


def start(symbol="add", module="one", **changes):
    given = {"grid": 3, "block": 128, "shared_bytes": 0, "args": (on_gpu(), None, 7, 0.5)}
    launch(module, symbol, **{**given, **changes})


def test_arguments_reach_the_kernel(driver):
    x = on_gpu()
    start(args=(x, None, -7, 0.5))
    start(args=(None, x, True, 2.0), grid=(1, 2, 3), shared_bytes=16)
    (config, function, first, extra), (other, _, second, _) = driver.launches
    assert first == [struct.pack("<Q", x.data_ptr()), bytes(8), struct.pack("<i", -7), b"\0\0\0?"]
    assert second == [bytes(8), first[0], struct.pack("<i", 1), struct.pack("<f", 2)]
    assert (function, extra) == ("cuKernelGetFunction", 0)
    names = ("gridDimX", "gridDimY", "gridDimZ", "blockDimX", "blockDimY", "blockDimZ")
    assert [config[name] for name in names] == [3, 1, 1, 128, 1, 1]
    assert [other[name] for name in names] == [1, 2, 3, 128, 1, 1]
    assert (config["sharedMemBytes"], other["sharedMemBytes"], config["hStream"]) == (0, 16, 70)


def test_kernels_may_overlap_with_the_previous_one(driver):
    start()
    config = driver.launches[0][0]
    (attribute,) = config["attrs"]
    assert config["numAttrs"] == 1 and attribute.id == "overlap"
    assert attribute.value.programmaticStreamSerializationAllowed == 1


def test_a_module_is_loaded_once(driver):
    start()
    start()
    start("multiply")
    names = [call[0] for call in driver.calls]
    assert names.count("cuLibraryLoadData") == 1 and names.count("cuLibraryGetKernel") == 2
    assert len(driver.launches) == 3
    loaded = [call for call in driver.calls if call[0].startswith("cuLibrary")]
    assert loaded[0][1] == b"code" and loaded[1][2] == b"add"


def test_shared_memory_is_asked_for_when_there_is_more_than_before(driver):
    for shared_bytes in (48 * 1024, 100_000, 60_000, 100_000, 200_000):
        start(shared_bytes=shared_bytes)
    asked = [call[1] for call in driver.calls if call[0] == "shared"]
    assert asked == [100_000, 200_000]


def test_streams_and_devices(driver, monkeypatch):
    entered = []

    def guard(index):
        entered.append(index)
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "device", guard)
    start(stream=SimpleNamespace(cuda_stream=99))
    start(args=(on_gpu(1), None, 7, 0.5))
    assert [config["hStream"] for config, *_ in driver.launches] == [99, 71]
    assert entered == [1]


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"module": "two"}, "there is no two.cubin"),
        ({"args": (None, None, 7, 0.5)}, "no argument is a tensor"),
        ({"args": (on_gpu(), on_gpu(1), 7, 0.5)}, "add: its tensors are not all on one GPU"),
        ({"args": (torch.zeros(1), None, 7, 0.5)}, "are not all on one GPU"),
        ({"args": (on_gpu(), 3, 7, 0.5)}, "of [8, 8, 4, 4] bytes, not arguments of [8, 4"),
        ({"args": (on_gpu(), None, 7)}, "add takes parameters of"),
        ({"args": (on_gpu(), None, 2**31, 0.5)}, "do not pack"),
        ({"args": (on_gpu(), None, 7, 1e300)}, "do not pack"),
    ],
)  # fmt: skip
def test_what_is_refused(driver, changes, text):
    with pytest.raises(KernelError) as error:
        start(**changes)
    assert text in str(error.value) and "\n" not in str(error.value)
    assert isinstance(error.value, HaastError) and not driver.launches


@pytest.mark.parametrize(
    "fails, text",
    [
        ("cuLibraryLoadData", "driver 580 or newer, which is CUDA 13.0; here is 8.0 and CUDA 12.4"),
        (
            "cuLibraryGetKernel",
            "one.cubin has no kernel add, or is damaged (build it again: python",
        ),
        ("cuKernelGetFunction", "one.cubin add does not load: CUDA_ERROR_NOT_FOUND"),
        ("cuKernelSetAttribute", "add cannot have 99999 shared bytes: CUDA_ERROR_INVALID_VALUE"),
        ("launch", "launch of add, grid (3, 1, 1), block 128, 99999 shared bytes: CUDA_ERROR_INV"),
    ],
)
def test_what_the_driver_refuses(driver, fails, text):
    driver.fails = fails
    with pytest.raises(KernelError) as error:
        start(shared_bytes=99_999)
    assert text in str(error.value) and "\n" not in str(error.value)


def test_why_kernels_were_not_built(driver, monkeypatch):
    monkeypatch.setattr(launcher, "why_not_built", lambda: "no g++; run: x")
    with pytest.raises(KernelError, match=r"^no g\+\+; run: x$"):
        start(module="two")


@pytest.mark.skipif(sys.platform != "linux", reason="cuda-bindings is installed on Linux")
def test_the_real_driver_module_has_what_is_used():
    real = pytest.importorskip("cuda.bindings.driver")
    assert isinstance(real, types.ModuleType) and launcher._driver() is real
    used = ["cuLibraryLoadData", "cuLibraryGetKernel", "cuKernelGetFunction", "cuLaunchKernelEx"]
    used += ["cuKernelGetParamInfo", "cuKernelSetAttribute", "cuDeviceGet", "cuDriverGetVersion"]
    assert all(callable(getattr(real, name)) for name in used)
    assert not real.CUresult.CUDA_SUCCESS and real.CUresult.CUDA_ERROR_NOT_FOUND
    kernel = launcher._Kernel(TypesOnly(real), "add", None, None, 0)
    kernel._set_shape((1, 2, 3), 64, 16, 0)
    assert (kernel.config.gridDimZ, kernel.config.blockDimX, kernel.config.numAttrs) == (3, 64, 1)
    with pytest.raises(KernelError, match="negative or too large"):
        kernel._set_shape((-1, 1, 1), 64, 16, 0)


class TypesOnly:
    """The real module's types, without its calls."""

    def __init__(self, real):
        self.real = real

    def __getattr__(self, name):
        return getattr(self.real, name)

    def cuKernelGetParamInfo(self, kernel, index):
        return (Result.CUDA_ERROR_INVALID_VALUE, 0, 0)


def test_multiprocessors_are_asked_for_once(driver, monkeypatch):
    asked = []
    properties = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: asked.append(device) or properties
    )
    assert multiprocessors(0) == multiprocessors(0) == 132 and asked == [0]
