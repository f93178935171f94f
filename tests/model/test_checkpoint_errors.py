"""The one line that says what is wrong with a checkpoint."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from haast.errors import HaastError
from haast.model.checkpoint import INDEX, open_checkpoint

from .helpers import WEIGHTS, write_config


def change(folder, layout="hf", **tensors):
    """Replace tensors of the one weight file; None removes, dots are written as __."""
    file = folder / WEIGHTS[layout]
    held = load_file(file)
    for name, tensor in tensors.items():
        held[name.replace("__", ".")] = tensor
    save_file({name: tensor for name, tensor in held.items() if tensor is not None}, file)
    return file


def problem(folder):
    with pytest.raises(HaastError) as error:
        open_checkpoint(folder)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_path_does_not_exist(tmp_path):
    assert problem(tmp_path / "gone") == f"{tmp_path / 'gone'}: no such file or folder"


def test_path_is_a_file(tiny):
    file = tiny / "original" / "model.safetensors"
    assert "not a folder; name the folder that holds the weights" in problem(file)


def test_no_config(copy):
    folder = copy("hf")
    (folder / "config.json").unlink()
    assert problem(folder) == f"{folder}: holds weights but no config.json"


def test_not_a_gpt_oss_model(copy):
    folder = copy("hf")
    write_config(folder / "config.json", model_type="llama")
    assert "config.json: not a gpt-oss model: model_type is 'llama'" in problem(folder)


def test_empty_folder(tmp_path):
    assert problem(tmp_path) == f"{tmp_path}: no safetensors files"


@pytest.mark.parametrize("other", ["model.gguf", "pytorch_model.bin", "metal/model.bin"])
def test_only_other_kinds_of_weights(tmp_path, other):
    (tmp_path / "metal").mkdir()
    (tmp_path / other).write_bytes(b"x")
    assert problem(tmp_path) == f"{tmp_path}: no safetensors files, only {other}"


def test_folder_of_checkpoints(copy):
    folder = copy("hf", to="small")
    text = problem(folder.parent)
    assert text.endswith(f"no safetensors files; name one of its sub-folders: {folder}")


def test_tensor_names_of_no_known_layout(copy):
    folder = copy("hf")
    (folder / WEIGHTS["hf"]).unlink()
    save_file({"model.layers.0.mlp.experts.qweight": torch.zeros(1)}, folder / "x.safetensors")
    text = problem(folder)
    assert "no known layout, such as 'model.layers.0.mlp.experts.qweight'" in text
    assert "hf-mxfp4, original and hf-bf16" in text


def test_index_names_a_missing_shard(copy):
    folder = copy("hf")
    weight_map = {"lm_head.weight": "model-00002-of-00002.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert f"{INDEX}: names model-00002-of-00002.safetensors, which is not in" in problem(folder)


def test_index_without_a_weight_map(copy):
    folder = copy("hf")
    (folder / INDEX).write_text(json.dumps({"weight_map": ["x"]}))
    assert "'weight_map' must map tensor names to file names" in problem(folder)


def test_index_names_a_tensor_its_file_does_not_hold(copy):
    folder = copy("hf")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"odd.weight": WEIGHTS["hf"]}}))
    assert f"says {WEIGHTS['hf']} holds tensor 'odd.weight', but it does not" in problem(folder)


def test_same_tensor_in_two_files(copy):
    folder = copy("hf")
    save_file({"model.norm.weight": torch.zeros(96).bfloat16()}, folder / "twin.safetensors")
    text = problem(folder)
    assert "twin.safetensors: tensor 'model.norm.weight' is also in" in text
    assert text.endswith(WEIGHTS["hf"])


def test_truncated_shard(copy):
    file = copy("hf") / WEIGHTS["hf"]
    file.write_bytes(file.read_bytes()[:-1])
    assert problem(file.parent).startswith(f"{file}: truncated")


def test_missing_tensors(copy):
    folder = copy("hf")
    change(folder, lm_head__weight=None)
    assert problem(folder) == f"{folder}: tensor 'lm_head.weight' is missing"
    change(folder, model__norm__weight=None)
    assert problem(folder).endswith("tensor 'model.norm.weight' (and 1 more) is missing")


def test_unknown_tensor(copy):
    folder = copy("hf")
    file = change(folder, model__rotary__inv_freq=torch.zeros(8))
    text = problem(folder)
    assert text.startswith(f"{file}: unknown tensor 'model.rotary.inv_freq'")
    assert "hf-mxfp4 layout" in text


def test_misshaped_tensor(copy):
    folder = copy("hf")
    file = change(folder, model__norm__weight=torch.zeros(96, 1).bfloat16())
    assert problem(folder) == f"{file}: tensor 'model.norm.weight' is [96, 1], expected [96]"


def test_mistyped_tensor(copy):
    folder = copy("original")
    file = change(folder, "original", norm__scale=torch.zeros(96))
    assert problem(folder) == f"{file}: tensor 'norm.scale' is F32, expected BF16"


def test_config_with_another_number_of_layers(copy):
    folder = copy("hf")
    write_config(folder / "config.json", num_hidden_layers=2, layer_types=["full_attention"] * 2)
    text = problem(folder)
    assert "config.json: num_hidden_layers is 2" in text and "tensors of 3 layers" in text


@pytest.mark.parametrize(
    "changes, key, shapes",
    [
        ({"num_local_experts": 7}, "num_local_experts", "[5, 96], expected [7, 96]"),
        ({"hidden_size": 64}, "hidden_size", "[96], expected [64]"),
        ({"intermediate_size": 32}, "intermediate_size", "[5, 128"),
        (
            {"num_attention_heads": 6},
            "num_attention_heads or head_dim",
            "[128, 96], expected [96, 96]",
        ),
        (
            {"num_key_value_heads": 4},
            "num_key_value_heads or head_dim",
            "[32, 96], expected [64, 96]",
        ),
        ({"vocab_size": 301}, "vocab_size", "[300, 96], expected [301, 96]"),
    ],
)
def test_config_that_does_not_fit_the_weights(copy, changes, key, shapes):
    folder = copy("hf")
    config = write_config(folder / "config.json", **changes)
    text = problem(folder)
    assert shapes in text
    assert text.endswith(f"; does {key} in {config} fit these weights?")


def test_openai_config_that_does_not_fit_names_its_own_key(copy):
    folder = copy("original")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_experts": 9}))
    assert f"does num_experts in {config} fit" in problem(folder)
