"""The small network's parameters, and a machine that has kernels if asked.

Tensors are tiny, and the test processes share the cores.
"""

import pytest
import torch

from haast import ops
from haast.engine import footprint as footprint_module
from haast.engine import op_choice
from haast.engine import plan as plan_module
from haast.model.random_weights import random_parameters
from haast.ops import hopper

from ..model.helpers import CPU
from .planning import BY_KERNELS
from .small_model import CONFIG


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def parameters():
    """Of the small network, in fp32."""
    return random_parameters(CONFIG, "mxfp4", CPU).to(torch.float32)


@pytest.fixture
def kernels(monkeypatch):
    """kernels(*names) gives these ops two kernels each, and the others none."""

    def kernel(name, op):
        return ops.Kernel(name, op.reference, lambda *_: None, lambda *_: (), because="test")

    def give(*names):
        for op in ops.MODEL_OPS:
            rows = (kernel("small", op), kernel("wide", op)) if op.name in names else ()
            monkeypatch.setattr(op, "kernels", rows)

    give(*BY_KERNELS)
    return give


@pytest.fixture
def gpu(monkeypatch):
    """A plan for a GPU needs no GPU; gpu(capability, why not built) makes it another one."""

    def become(capability, not_built=None):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(hopper, "_why_not_built", lambda: not_built)

    monkeypatch.setattr(footprint_module, "free_memory", lambda device: 1 << 32)
    monkeypatch.setattr(plan_module, "device_name", lambda device: str(device))
    monkeypatch.setattr(op_choice, "num_ctas_of", lambda device: 132)
    become((9, 0))
    return become
