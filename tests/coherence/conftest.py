"""A guard that asks little, and copies of haast-tiny to damage."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from haast.coherence import Report, check_coherence, guard
from haast.coherence.suite import read_suite
from haast.config import EngineConfig
from haast.model.locate import demo_folder


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def judge(monkeypatch):
    """judge(path) -> Report of 3 fixed prompts, 8 answers and 6 held-out texts.

    On the CPU, whose references the tests may change.
    """

    def read_little(folder):
        suite = read_suite(folder)
        return replace(suite, held_out=suite.held_out[:6])

    def run(path=None, **wishes) -> Report:
        sizes = {"max_batch_size": 16, "max_length": 640}
        config = EngineConfig(model_path=path, devices="cpu", **sizes, **wishes)
        return check_coherence(config, max_prompts=8)

    monkeypatch.setattr(guard, "PROMPTS", guard.PROMPTS[:3])
    monkeypatch.setattr(guard, "MAX_NEW_TOKENS", 80)
    monkeypatch.setattr(guard, "read_suite", read_little)
    return run


@pytest.fixture
def damaged(tmp_path):
    """damaged(suffixes, change) -> a copy of haast-tiny with change(tensor) where names end so."""

    def make(suffixes, change):
        folder = shutil.copytree(demo_folder(), tmp_path / "damaged")
        path = folder / "model.safetensors"
        tensors = load_file(path)
        names = [name for name in tensors if name.endswith(suffixes)]
        assert names, suffixes
        changed = {name: change(tensors[name]).contiguous() for name in names}
        save_file(tensors | changed, path, {"format": "pt"})
        return folder

    return make


def values(report: Report) -> dict[str, float]:
    return {check.name: check.value for check in report.checks}


def failed(report: Report) -> set[str]:
    return {check.name for check in report.checks if not check.passed}
