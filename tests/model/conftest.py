"""One tiny checkpoint a layout, all from the same seed, made once a process."""

import shutil

import pytest
import torch

from haast.model.checkpoint import INDEX
from haast.model.write_checkpoint import make_checkpoint

from .helpers import write_config

SEED = 7


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tensors are tiny, and the test processes share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of the hf, original and bf16 checkpoints, in sub-folders of these names."""
    folder = tmp_path_factory.mktemp("tiny")
    like = write_config(folder / "config.json")
    for layout in ("hf", "original", "bf16"):
        make_checkpoint(like, folder / layout, layout=layout, seed=SEED)
    return folder


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy of the checkpoint in one layout that a test may damage; without its index."""

    def make(layout, to=None):
        folder = tmp_path / "model" / (to or "")
        skip = shutil.ignore_patterns("tokenizer*", INDEX)
        shutil.copytree(tiny / layout, folder, ignore=skip, dirs_exist_ok=True)
        return folder

    return make
