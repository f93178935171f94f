"""A GPU is woken before torch is there, if one is wished for; nothing that fails is told."""

import ctypes
import gc
from types import SimpleNamespace

import pytest

from haast.engine import wake as module
from haast.engine.wake import importing, wake


@pytest.fixture
def calls(monkeypatch):
    """What the driver is asked, by a fake of two devices."""
    found = []

    def get(device, index):
        found.append(("get", index))
        device._obj.value = 40 + index
        return 0 if index < 2 else 101

    driver = SimpleNamespace(
        cuInit=lambda flags: found.append("init") or 0,
        cuDeviceGet=get,
        cuDevicePrimaryCtxRetain=lambda context, device: found.append(("retain", device.value)),
    )
    fake = SimpleNamespace(
        CDLL=lambda name: driver if name == "libcuda.so.1" else None,
        c_int=ctypes.c_int,
        c_void_p=ctypes.c_void_p,
        byref=ctypes.byref,
    )
    monkeypatch.setattr(module, "ctypes", fake)
    return found


@pytest.mark.parametrize("devices, index", [(None, 0), ("gpu", 0), ("gpu:1", 1)])
def test_the_wished_device_gets_its_context(calls, devices, index):
    wake(devices).join(10)
    assert calls == ["init", ("get", index), ("retain", 40 + index)]


@pytest.mark.parametrize("devices", ["cpu", "gpu:", "gpu:0,1", "tpu", "gpu:-1"])
def test_no_one_device(calls, devices):
    assert wake(devices) is None and calls == []


def test_a_device_that_is_not_there(calls):
    wake("gpu:2").join(10)
    assert calls == ["init", ("get", 2)]


def test_without_a_driver(calls, monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(module.ctypes, "CDLL", missing)
    wake(None).join(10)
    assert calls == []


@pytest.fixture
def thawed():
    yield gc.get_freeze_count
    gc.unfreeze()
    assert gc.isenabled()


def test_imports_are_no_garbage(thawed):
    with importing():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled() and thawed() > len(kept)


def test_an_import_that_fails_leaves_things_as_they_were(thawed):
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled() and thawed() == 0
