"""Where kernels can run, and the reasons where they cannot."""

import pytest
import torch

from haast.ops import hopper, why_no_kernels


@pytest.fixture
def gpu(monkeypatch):
    """gpu(capabilities, why not built): GPUs in the order of their numbers."""

    def become(*capabilities, not_built=None):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: capabilities[d.index])
        monkeypatch.setattr(hopper, "_why_not_built", lambda: not_built)

    return become


def test_a_hopper_gpu_runs_kernels(gpu):
    gpu((9, 0))
    assert why_no_kernels(torch.device("cuda", 0)) is None


def test_a_hopper_gpu_whose_kernels_are_not_built(gpu):
    gpu((9, 0), not_built="no g++")
    assert why_no_kernels(torch.device("cuda", 0)) == "no g++"


def test_the_capability_is_that_of_the_device(gpu):
    gpu((9, 0), (8, 9), (9, 1), (10, 0))
    found = [why_no_kernels(torch.device("cuda", index)) for index in range(4)]
    assert found == [None] + [
        f"kernels need compute capability 9.0, cuda:{index} has {other}"
        for index, other in [(1, "8.9"), (2, "9.1"), (3, "10.0")]
    ]


def test_devices_that_are_no_gpu(gpu):
    """`meta` stands for a GPU that one only asks about: no cubin is needed for that."""
    gpu(not_built="no g++")
    assert why_no_kernels(torch.device("cpu")) == "kernels need a Hopper GPU, this is cpu"
    assert why_no_kernels(torch.device("meta")) is None
