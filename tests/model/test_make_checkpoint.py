"""Checkpoints of random weights: the files of each layout, and other readers of them."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import GptOssForCausalLM, Mxfp4Config

from haast.errors import HaastError
from haast.model import write_checkpoint
from haast.model.checkpoint import open_checkpoint
from haast.model.config_fields import config_fields
from haast.model.config_file import parse_model_config, read_model_config
from haast.model.layouts import HF_MXFP4, ORIGINAL
from haast.model.weights import load_parameters
from haast.model.write_checkpoint import make_checkpoint, split_into_shards

from .conftest import SEED
from .helpers import CPU, logits, write_config

INDEX = "model.safetensors.index.json"
LAYOUTS = ("hf", "original", "bf16")


@pytest.fixture
def like(tmp_path):
    return write_config(tmp_path / "like.json")


@pytest.fixture
def no_tokenizer(monkeypatch):
    """Skip its 27 MB where a test is not about it."""
    monkeypatch.setattr(write_checkpoint, "_write_tokenizer", lambda out: None)


@pytest.mark.parametrize("size", ["20b", "120b"])
def test_config_of_the_hf_layout_is_the_published_one(size):
    published = json.loads((files("haast") / f"data/gpt-oss-{size}/config.json").read_text())
    config = parse_model_config(published, Path("config.json"))
    assert config_fields(config, HF_MXFP4) == published


def test_config_of_the_original_layout_means_the_same_as_the_published_one():
    published = json.loads((files("haast") / "data/gpt-oss-20b/config.json").read_text())
    config = parse_model_config(published, Path("config.json"))
    fields = config_fields(config, ORIGINAL)
    assert parse_model_config(fields, Path("config.json")) == config
    assert fields["num_experts"] == 32 and "model_type" not in fields


def test_files_of_each_layout(tiny):
    names = {layout: {file.name for file in (tiny / layout).iterdir()} for layout in LAYOUTS}
    besides = {"config.json", "tokenizer.json", "tokenizer_config.json"}
    sharded = {"model-00001-of-00001.safetensors", INDEX}
    assert names["hf"] == names["bf16"] == besides | sharded
    assert names["original"] == besides | {"model.safetensors"}


def test_only_mxfp4_claims_to_be_quantised(tiny):
    configs = {
        layout: json.loads((tiny / layout / "config.json").read_text()) for layout in LAYOUTS
    }
    assert configs["hf"]["quantization_config"]["quant_method"] == "mxfp4"
    assert "quantization_config" not in configs["bf16"]
    assert "rope_ntk_beta" in configs["original"]


def test_tokenizer_is_the_real_one(tiny):
    tokenizer = Tokenizer.from_file(str(tiny / "hf" / "tokenizer.json"))
    assert tokenizer.token_to_id("<|return|>") == 200002
    settings = json.loads((tiny / "hf" / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == "<|return|>"


@pytest.mark.parametrize(
    "layout, pattern",
    [("hf", "model-{:05d}-of-{:05d}"), ("original", "model--{:05d}-of-{:05d}")],
)
def test_large_checkpoints_are_sharded(tmp_path, like, monkeypatch, no_tokenizer, layout, pattern):
    monkeypatch.setattr(write_checkpoint, "SHARD_BYTES", 100_000)
    out, seen = tmp_path / "out", []
    make_checkpoint(
        like, out, layout=layout, progress=lambda done, total: seen.append((done, total))
    )
    checkpoint = open_checkpoint(out)
    shards = sorted(out.glob("*.safetensors"))
    count = len(shards)
    assert count > 3
    assert [file.stem for file in shards] == [pattern.format(n + 1, count) for n in range(count)]
    assert all(file.stat().st_size < 110_000 for file in shards)
    index = json.loads((out / INDEX).read_text())
    held = {name: file.name for file in shards for name in load_file(file)}
    assert index == {"metadata": {"total_size": checkpoint.nbytes}, "weight_map": held}
    assert seen[-1] == (checkpoint.nbytes, checkpoint.nbytes)


def test_a_role_is_never_split_and_a_large_one_stands_alone():
    sources = [SimpleNamespace(nbytes=nbytes) for nbytes in (3, 3, 4, 50, 1, 9, 1)]
    shards = split_into_shards(sources, 10)
    assert [[s.nbytes for s in shard] for shard in shards] == [[3, 3, 4], [50], [1, 9], [1]]


def test_other_numbers_of_layers_and_experts(tmp_path, like, no_tokenizer):
    for layout in ("hf", "original"):
        out = tmp_path / layout
        make_checkpoint(like, out, num_layers=5, num_experts=2, layout=layout)
        config = open_checkpoint(out).config
        base = read_model_config(like)
        windows = (8, None, 8, None, 8)
        assert config == replace(base, num_layers=5, num_experts=2, windows=windows)


def test_one_layer_of_the_published_shapes(tmp_path, monkeypatch, no_tokenizer):
    """Shapes only: the packaged config is found and nothing of it is lost."""
    monkeypatch.setattr(write_checkpoint, "_write_shards", lambda *arguments: None)
    make_checkpoint("gpt-oss-20b", tmp_path / "out", num_layers=2)
    config = read_model_config(tmp_path / "out" / "config.json")
    assert (config.hidden_size, config.vocab_size, config.windows) == (2880, 201088, (128, None))


def test_same_seed_same_files(tmp_path, like, tiny, no_tokenizer):
    for name, seed in {"a": SEED, "b": SEED + 1}.items():
        make_checkpoint(like, tmp_path / name, seed=seed)
    a, b, c = (
        next(folder.glob("*.safetensors")).read_bytes()
        for folder in (tmp_path / "a", tmp_path / "b", tiny / "hf")
    )
    assert a == c and a != b


def refused(*arguments, **options):
    with pytest.raises(HaastError) as error:
        make_checkpoint(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folder_in_use_is_left_alone(tmp_path, like):
    assert "exists and is not an empty folder; nothing was written" in refused(like, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["like.json"]
    assert "not an empty folder" in refused(like, like)


def test_unknown_model(tmp_path):
    text = refused("gpt-oss-7b", tmp_path / "out")
    assert text.startswith("gpt-oss-7b: neither gpt-oss-20b nor gpt-oss-120b nor a config.json")


def test_disk_too_small(tmp_path, like, monkeypatch):
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(write_checkpoint.shutil, "disk_usage", lambda path: usage)
    assert "0.0 GB needed, 0.0 GB free" in refused(like, tmp_path / "out")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"num_layers": 0}, "layer_types must name every layer"),
        ({"num_experts": 1}, "experts per token must be between 1 and the number of experts"),
        (
            {"num_layers": 4, "layout": "original"},
            "original layout: its config.json cannot express this model's windows",
        ),
    ],
)
def test_impossible_sizes(tmp_path, options, words):
    kinds = ["sliding_attention", "full_attention", "full_attention"]
    like = write_config(tmp_path / "like.json", layer_types=kinds)
    assert words in refused(like, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["bf16", "hf"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_transformers_computes_the_same_logits(tiny, layout):
    tokens = [5, 299, 17, 4, 4, 123, 88, 260, 31, 7, 64, 8, 9, 10, 11, 12]
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    if layout == "hf":
        options["quantization_config"] = Mxfp4Config(dequantize=True)
    theirs = GptOssForCausalLM.from_pretrained(tiny / layout, **options)
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0]
    checkpoint = open_checkpoint(tiny / layout)
    parameters = load_parameters(checkpoint, checkpoint.layout.encoding, CPU)
    got = logits(checkpoint.config, parameters.to(torch.float32), tokens)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-5)
