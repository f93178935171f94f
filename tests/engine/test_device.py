"""Picking a device, on machines with and without GPUs."""

import pytest
import torch

from haast.config import ConfigError
from haast.engine.device import (
    device_name,
    free_memory,
    peak_memory,
    pick_device,
    pick_devices,
)


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many GPUs and a torch that can or cannot use them."""

    def make(num_gpus, cuda="13.0"):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch, "__version__", "2.13.0+build")

    return make


@pytest.mark.parametrize(
    "wish, num_gpus, device",
    [
        (None, 0, "cpu"),
        (None, 2, "cuda:0"),
        ("cpu", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("gpu", 1, "cuda:0"),
        ("gpu:0", 1, "cuda:0"),
        ("gpu:1", 2, "cuda:1"),
        ("gpu:10", 11, "cuda:10"),
    ],
)
def test_pick_device(machine, wish, num_gpus, device):
    machine(num_gpus)
    assert pick_device(wish) == torch.device(device)


@pytest.mark.parametrize("wish", ["cuda", "gpu:", "gpu:-1", "gpu:1,2", "GPU", "cpu:0", "", " gpu"])
def test_an_unknown_device(machine, wish):
    machine(2)
    with pytest.raises(ConfigError) as error:
        pick_device(wish)
    assert str(error.value) == f"devices '{wish}' is not one of cpu, gpu, gpu:N"


@pytest.mark.parametrize(
    "wish, num_gpus, cuda, why",
    [
        ("gpu", 0, None, "torch 2.13.0+build is a CPU build; install a CUDA build or use cpu"),
        ("gpu", 0, "13.0", "torch sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES, or use"),
        ("gpu:1", 1, "13.0", "torch sees 1 GPU, numbered from 0"),
        ("gpu:2", 2, "13.0", "torch sees 2 GPUs, numbered from 0"),
    ],
)
def test_a_gpu_that_is_not_there(machine, wish, num_gpus, cuda, why):
    machine(num_gpus, cuda)
    with pytest.raises(ConfigError) as error:
        pick_device(wish)
    message = str(error.value)
    assert message.startswith(f"devices '{wish}': {why}") and "\n" not in message


def test_names(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert device_name(torch.device("cpu")) == "cpu"
    assert device_name(torch.device("cuda", 1)) == "gpu:1 (NVIDIA H200)"


def test_memory_is_in_bytes():
    """More than 64 MiB free and used, and no more than an exabyte."""
    for nbytes in (free_memory(torch.device("cpu")), peak_memory(torch.device("cpu"))):
        assert 1 << 26 < nbytes < 1 << 60


@pytest.mark.parametrize(
    "wish, names",
    [
        (None, ["cuda:0"]),
        ("gpu", ["cuda:0"]),
        ("gpu:3", ["cuda:3"]),
        ("gpu:0,1", ["cuda:0", "cuda:1"]),
        ("gpu:3,0,2", ["cuda:3", "cuda:0", "cuda:2"]),
        ("cpu", ["cpu"]),
        ("1xcpu", ["cpu"]),
        ("3xcpu", ["cpu"] * 3),
    ],
)
def test_pick_devices(machine, wish, names):
    machine(4)
    assert pick_devices(wish) == tuple(map(torch.device, names))


@pytest.mark.parametrize(
    "wish", ["", "gpu:", "gpu:0,", "gpu:,1", "gpu:0,x", "0xcpu", "xcpu", "2xgpu"]
)
def test_unknown_devices(machine, wish):
    machine(4)
    with pytest.raises(ConfigError) as error:
        pick_devices(wish)
    forms = "cpu, gpu, gpu:N, gpu:N,M,... and Nxcpu"
    assert str(error.value) == f"devices '{wish}' is not one of {forms}"


@pytest.mark.parametrize(
    "wish, why",
    [
        ("gpu:0,2", "devices 'gpu:2': torch sees 2 GPUs, numbered from 0"),
        ("gpu:1,1", "devices 'gpu:1,1' names a GPU twice"),
    ],
)
def test_gpus_that_are_not_there(machine, wish, why):
    machine(2)
    with pytest.raises(ConfigError) as error:
        pick_devices(wish)
    assert str(error.value) == why
