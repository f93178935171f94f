"""What is decided before anything is loaded, and the one-line refusals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from haast.config import ConfigError, EngineConfig
from haast.engine import plan as plan_module
from haast.engine.plan import Source, make_plan, parameter_bytes
from haast.model import write_checkpoint
from haast.model.checkpoint import open_checkpoint
from haast.model.config_file import read_model_config
from haast.model.kv_cache import KVCache
from haast.model.locate import packaged_folder
from haast.model.random_weights import random_parameters
from haast.model.weights import load_parameters
from haast.ops import MODEL_OPS

from .oracle import CONFIG, CPU

ENCODINGS = ("mxfp4", "bfloat16")
MODEL = replace(CONFIG, max_length=1000)
PAGE_BYTES = 128 * 2 * 2 * 2 * 16 * 2
"""128 positions of keys and values: 2 layers, 2 heads, 16 dimensions, bf16"""
WEIGHTS = parameter_bytes(MODEL, "mxfp4")


def plan_with(monkeypatch, free, encoding="mxfp4", model=MODEL, **wishes):
    monkeypatch.setattr(plan_module, "free_memory", lambda device: free)
    wishes = {"device_memory_utilization": 1.0} | wishes
    source = Source(Path("somewhere"), "hf", ("a.safetensors",))
    return make_plan(EngineConfig(**wishes), model, source, encoding, CPU)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_weight_bytes_are_those_of_the_parameters(encoding):
    assert parameter_bytes(CONFIG, encoding) == random_parameters(CONFIG, encoding, CPU).nbytes


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folder of a written checkpoint per layout, without the tokenizer."""
    folder = tmp_path_factory.mktemp("plan")
    text = (packaged_folder("gpt-oss-20b") / "config.json").read_text()
    small = [("2880", "64"), ("201088", "300"), ('"head_dim": 64', '"head_dim": 8')]
    for old, new in small:
        text = text.replace(old, new)
    (folder / "config.json").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_checkpoint, "_write_tokenizer", lambda out: None)
        for layout in ("hf", "bf16"):
            write_checkpoint.make_checkpoint(
                folder / "config.json", folder / layout, layout=layout, num_layers=2, num_experts=5
            )
    return folder


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("layout", ["hf", "bf16"])
def test_weight_bytes_are_those_loaded(checkpoints, layout, encoding):
    checkpoint = open_checkpoint(checkpoints / layout)
    loaded = load_parameters(checkpoint, encoding, CPU)
    assert parameter_bytes(checkpoint.config, encoding) == loaded.nbytes


def test_weight_bytes_of_the_published_model():
    """gpt-oss-20b: 13.76 GB as published, 41.83 GB in bf16."""
    config = read_model_config(packaged_folder("gpt-oss-20b") / "config.json")
    assert parameter_bytes(config, "mxfp4") == 13_761_264_768
    assert parameter_bytes(config, "bfloat16") == 2 * 20_914_757_184


def test_ample_memory_gives_every_row_its_full_length(monkeypatch):
    plan = plan_with(monkeypatch, 1 << 30, max_batch_size=3)
    assert plan.memory.num_pages == 3 * 8 and plan.max_length == 1000
    assert plan.memory.kv_bytes == 24 * PAGE_BYTES and plan.memory.kv_tokens == 24 * 128
    assert plan.memory.weight_bytes == WEIGHTS and plan.memory.available_bytes == 1 << 30
    assert plan.pins == {op.name: "reference" for op in MODEL_OPS}
    assert (plan.device, plan.encoding, plan.layout) == ("cpu", "mxfp4", "hf")
    assert (plan.model_path, plan.files) == (Path("somewhere"), ("a.safetensors",))


def test_less_memory_gives_fewer_pages(monkeypatch):
    plan = plan_with(monkeypatch, WEIGHTS + 10 * PAGE_BYTES + PAGE_BYTES - 1, max_batch_size=3)
    assert plan.memory.num_pages == 10 and plan.max_length == 1000


def test_little_memory_shrinks_the_length(monkeypatch):
    plan = plan_with(monkeypatch, WEIGHTS + 3 * PAGE_BYTES)
    assert plan.memory.num_pages == 3 and plan.max_length == 3 * 128


def test_utilization_is_of_what_is_free(monkeypatch):
    free = 2 * (WEIGHTS + 5 * PAGE_BYTES)
    plan = plan_with(monkeypatch, free, device_memory_utilization=0.5)
    assert plan.memory.num_pages == 5 and plan.memory.available_bytes == free // 2


@pytest.mark.parametrize("length, pages", [(1, 1), (128, 1), (129, 2), (1000, 8)])
def test_a_wished_length_rounds_up_to_pages(monkeypatch, length, pages):
    plan = plan_with(monkeypatch, 1 << 30, max_length=length, max_batch_size=2)
    assert plan.max_length == length and plan.memory.num_pages == 2 * pages


def test_a_wished_length_is_not_shrunk(monkeypatch):
    plan_with(monkeypatch, WEIGHTS + 4 * PAGE_BYTES, max_length=512)
    with pytest.raises(ConfigError, match="^memory is short: "):
        plan_with(monkeypatch, WEIGHTS + 4 * PAGE_BYTES - 1, max_length=512)


def test_too_little_memory_says_what_takes_how_much(monkeypatch):
    big = replace(MODEL, vocab_size=10**8, max_length=131072)
    weights = parameter_bytes(big, "bfloat16") / 1e9
    with pytest.raises(ConfigError) as error:
        plan_with(monkeypatch, 10**9, "bfloat16", big, device_memory_utilization=0.75)
    assert str(error.value) == (
        f"memory is short: the weights take {weights:.2f} GB, but 0.75 GB may be used (0.75 of "
        "what is free); use a device with more, mxfp4 instead of bfloat16, or free memory on it"
    )


def test_room_for_the_weights_alone_is_not_enough(monkeypatch):
    with pytest.raises(ConfigError) as error:
        plan_with(monkeypatch, WEIGHTS + PAGE_BYTES, max_length=1000)
    text = str(error.value)
    assert "one request of full length 0.00 GB" in text and "lower max_length" in text


def test_a_length_beyond_the_models(monkeypatch):
    with pytest.raises(ConfigError, match="^max_length 1001 exceeds the model's 1000$"):
        plan_with(monkeypatch, 1 << 30, max_length=1001)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("device_memory_utilization", 0, "device_memory_utilization must lie in (0, 1]; got 0"),
        ("device_memory_utilization", 1.1, "device_memory_utilization must lie in (0, 1]; got 1.1"),
        ("max_batch_size", 0, "max_batch_size must be at least 1; got 0"),
        ("max_length", -3, "max_length must be at least 1; got -3"),
    ],
)
def test_wishes_out_of_range(name, value, message):
    with pytest.raises(ConfigError) as error:
        EngineConfig(**{name: value})
    assert str(error.value) == message


def test_the_page_size_of_the_test_is_the_caches():
    cache = KVCache.empty(CONFIG, 1, 1, torch.bfloat16, CPU)
    assert sum(k.nbytes + v.nbytes for k, v in cache.layers) == PAGE_BYTES
