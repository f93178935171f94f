"""Only one model of a process may be on several GPUs; known without any."""

import pytest
import torch.distributed as dist

from haast.config import ConfigError
from haast.parallel.gpu import check_alone


def test_a_second_model_is_refused(monkeypatch):
    check_alone()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    with pytest.raises(ConfigError, match="^another model of this process is on several GPUs"):
        check_alone()


def test_one_that_is_gone_is_cleared_away(monkeypatch):
    answers = iter((True, False))
    monkeypatch.setattr(dist, "is_initialized", lambda: next(answers))
    check_alone()
