"""Whether all kernels load: what a damaged file makes the driver say, and real ones on a card."""

from types import SimpleNamespace

import pytest
import torch
from cuda.bindings.driver import CUresult

from haast.cuda import context, cubin_check
from haast.cuda.context import KernelError
from haast.ops import why_no_kernels


class FakeDriver:
    """A driver to whom every cubin has two kernels; `fails` names a call that it refuses."""

    def __init__(self, fails):
        self.fails = fails
        self.unloaded = []

    def __getattr__(self, name):
        refused = CUresult.CUDA_ERROR_INVALID_IMAGE
        answers = {"cuLibraryGetKernelCount": 2, "cuLibraryEnumerateKernels": [1, 2]}
        result = refused if name == self.fails else CUresult.CUDA_SUCCESS
        return lambda *arguments: (result, answers.get(name, 1))

    def cuLibraryUnload(self, library):
        self.unloaded.append(library)
        return (CUresult.CUDA_SUCCESS,)


@pytest.fixture
def count_with(monkeypatch, tmp_path):
    """count_with(fails) counts in a folder of one cubin with such a driver."""

    def count(fails):
        fake = FakeDriver(fails)
        monkeypatch.setattr("cuda.bindings.driver", fake)
        monkeypatch.setattr(torch.cuda, "init", lambda: None)
        monkeypatch.setattr(context, "_thread", SimpleNamespace())
        (tmp_path / "bad.cubin").write_bytes(b"code")
        return *cubin_check.count_loading(0, tmp_path), fake.unloaded

    return count


@pytest.mark.parametrize(
    "call", ["cuLibraryLoadData", "cuLibraryGetKernelCount", "cuLibraryEnumerateKernels"]
)
def test_whichever_call_refuses_a_file(count_with, call):
    with pytest.raises(KernelError, match=r"^bad\.cubin does not load: CUDA_ERROR_INVALID_IMAGE$"):
        count_with(call)


def test_a_kernel_that_does_not_load(count_with):
    assert count_with(None) == (1, 2, [1])
    with pytest.raises(KernelError, match=r"^a kernel of bad\.cubin does not load: CUDA_ERROR_INV"):
        count_with("cuKernelGetFunction")


@pytest.mark.skipif(
    not torch.cuda.is_available() or why_no_kernels(torch.device("cuda", 0)) is not None,
    reason="needs a Hopper GPU and kernels",
)
def test_every_kernel_loads(tmp_path):
    num_cubins, num_kernels = cubin_check.count_loading(0)
    assert num_cubins == len([*cubin_check.CUBINS.glob("*.cubin")]) and num_kernels > num_cubins
    for content in (b"\x7fELF" + bytes(60), b"no ELF at all"):
        (tmp_path / "bad.cubin").write_bytes(content)
        with pytest.raises(KernelError, match=r"^bad\.cubin does not load: CUDA_ERROR_"):
            cubin_check.count_loading(0, tmp_path)
