"""Finding a checkpoint and telling its layout."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from haast.model.checkpoint import INDEX, open_checkpoint

from .helpers import WEIGHTS, write_config


@pytest.mark.parametrize(
    "folder, name", [("hf", "hf-mxfp4"), ("original", "original"), ("bf16", "hf-bf16")]
)
def test_each_layout_is_recognised_and_described(tiny, folder, name):
    checkpoint = open_checkpoint(tiny / folder)
    assert checkpoint.layout.name == name
    assert checkpoint.describe().startswith(f"{name} layout in {tiny / folder} (1 file, 0.")
    assert checkpoint.describe().endswith(" MB)")
    assert checkpoint.tokenizer == tiny / folder / "tokenizer.json"
    assert checkpoint.chat_template is None
    assert checkpoint.nbytes < checkpoint.files[0].stat().st_size


def test_configs_of_all_layouts_agree(tiny):
    configs = [open_checkpoint(tiny / layout).config for layout in WEIGHTS]
    assert configs[0] == configs[1] == configs[2]


def test_hugging_face_root_wins_over_original(copy):
    folder = copy("hf")
    inner = copy("original", to="original")
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.layout.name, checkpoint.folder) == ("hf-mxfp4", folder)
    assert f"; not used: {inner} (1 file" in checkpoint.describe()


def test_original_wins_over_a_bf16_root(copy):
    folder = copy("bf16")
    inner = copy("original", to="original")
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.layout.name, checkpoint.folder) == ("original", inner)
    assert f"; not used: {folder} (1 file" in checkpoint.describe()


def test_original_alone_borrows_config_and_tokenizer_from_its_parent(copy):
    inner = copy("original", to="original")
    (inner / "config.json").unlink()
    write_config(inner.parent / "config.json")
    (inner.parent / "tokenizer.json").write_text("{}")
    (inner.parent / "chat_template.jinja").write_text("")
    for path in (inner, inner.parent):
        checkpoint = open_checkpoint(path)
        assert checkpoint.folder == inner and checkpoint.unused is None
        assert checkpoint.tokenizer.samefile(inner.parent / "tokenizer.json")
        assert checkpoint.chat_template.samefile(inner.parent / "chat_template.jinja")


def test_weights_in_several_files_with_and_without_index(copy):
    folder = copy("hf")
    held = load_file(folder / WEIGHTS["hf"])
    (folder / WEIGHTS["hf"]).unlink()
    names = sorted(held)
    shards = {"x.safetensors": names[::2], "y.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: held[name] for name in part}, folder / file)
    assert len(open_checkpoint(folder).files) == 2
    weight_map = {name: file for file, part in shards.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    save_file({"lm_head.weight": torch.zeros(1)}, folder / "unrelated.safetensors")
    assert [file.name for file in open_checkpoint(folder).files] == list(shards)
