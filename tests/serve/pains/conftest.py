"""A server over a script, and a real one."""

import pytest
import torch

from ..api.conftest import running

__all__ = ["running"]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)
