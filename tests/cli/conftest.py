"""The program, run inside the test process."""

import shutil
from typing import NamedTuple

import pytest
import torch

from haast.__main__ import main
from haast.model.locate import demo_folder


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def haast(capsys):
    """haast(*arguments) -> Outcome of the program with these arguments."""

    def run(*arguments) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Outcome(ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def refused(haast):
    """refused(*arguments) -> the one line of the error; which model is running may stand above."""

    def run(*arguments) -> str:
        outcome = haast(*arguments)
        lines = [line for line in outcome.err.splitlines() if not line.startswith("model: ")]
        assert outcome.code == 2, outcome
        assert outcome.out == "" and len(lines) == 1, outcome
        assert lines[0].startswith("haast: error: ")
        return lines[0].removeprefix("haast: error: ")

    return run


@pytest.fixture
def tiny_copy(tmp_path):
    """A copy of haast-tiny that a test may damage."""
    return shutil.copytree(demo_folder(), tmp_path / "model")


@pytest.fixture
def nothing_loads(monkeypatch):
    """What this test is about must happen before any weight is read."""

    def load(*arguments, **options):
        raise AssertionError("weights were read")

    monkeypatch.setattr("haast.engine.load.load_parameters", load)
