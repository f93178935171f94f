"""Fixtures of the bench tests."""

import pytest

from haast.bench.machine import why_no_hopper
from haast.bench.rooflines import Ceilings
from tests.bench.rehearsal import CEILINGS, rehearse, write_small_model


@pytest.fixture
def ceilings() -> Ceilings:
    return CEILINGS


@pytest.fixture(scope="session")
def hopper_only():
    """Skips where kernels cannot run, and says why."""
    reason = why_no_hopper()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def small_model(tmp_path):
    return write_small_model(tmp_path)


@pytest.fixture
def rehearsal(monkeypatch):
    with rehearse(monkeypatch) as results:
        yield results
