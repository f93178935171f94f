"""What is decided before anything is loaded, and the one-line refusals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from haast.config import ConfigError, EngineConfig
from haast.engine import footprint as footprint_module
from haast.engine import plan as plan_module
from haast.engine.footprint import parameter_bytes
from haast.engine.plan import Source, make_plan
from haast.model import write_checkpoint
from haast.model.checkpoint import open_checkpoint
from haast.model.config_file import read_model_config
from haast.model.kv_cache import KVCache
from haast.model.locate import packaged_folder
from haast.model.random_weights import random_parameters
from haast.model.weights import load_parameters
from haast.ops import MODEL_OPS

from ..model.helpers import CPU
from .planning import pins
from .small_model import CONFIG

ENCODINGS = ("mxfp4", "bfloat16")
MODEL = replace(CONFIG, max_length=1000)
LAYER_BYTES = 128 * 2 * 2 * 16 * 2
"""128 positions of keys and values: 2 heads, 16 dimensions, bf16; one layer of either kind"""
PAGE_BYTES = 2 * LAYER_BYTES
WEIGHTS = parameter_bytes(MODEL, "mxfp4")


def plan_with(monkeypatch, free, encoding="mxfp4", model=MODEL, **wishes):
    monkeypatch.setattr(footprint_module, "free_memory", lambda device: free)
    wishes = {"device_memory_utilization": 1.0} | wishes
    source = Source(Path("somewhere"), "hf", ("a.safetensors",))
    return make_plan(EngineConfig(**wishes), model, source, encoding, CPU)


def test_without_a_wish_the_device_decides_how_many_run(monkeypatch):
    def batch(**wishes):
        return plan_with(monkeypatch, 1 << 40, max_batch_size=None, **wishes).max_batch_size

    assert batch() == 8 and batch(max_batch_input_tokens=5) == 5
    gpu, few = torch.device("cuda", 0), EngineConfig(max_batch_size=7)
    assert plan_module._batch_size(EngineConfig(max_batch_size=None), gpu) == 256
    assert plan_module._batch_size(few, gpu) == plan_module._batch_size(few, CPU) == 7


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
    memory = plan.memory
    assert (plan.max_length, plan.max_batch_size) == (1000, 3)
    assert memory.num_pages == 2 * 3 * 8 and memory.num_full_length == 6
    assert memory.num_window_pages == 3 * 2 + 3000 // 128 + 1 + 48 // 16
    assert memory.kv_bytes == (48 + 33) * LAYER_BYTES and memory.kv_tokens == 48 * 128
    assert memory.naive_kv_bytes == 48 * PAGE_BYTES and memory.page_size == 128
    assert memory.weight_bytes == WEIGHTS and memory.available_bytes == 1 << 30
    assert memory.workspace_bytes == 0 and not plan.has_graphs
    assert pins(plan) == {op.name: "reference" for op in MODEL_OPS}
    assert (plan.device, plan.encoding, plan.layout) == ("cpu", "mxfp4", "hf")
    assert (plan.model_path, plan.files) == (Path("somewhere"), ("a.safetensors",))


def test_a_cache_in_e4m3_has_twice_the_pages(monkeypatch):
    wishes = {"max_batch_size": 3, "kv_cache_format": "float8_e4m3fn"}
    ample = plan_with(monkeypatch, 1 << 30, **wishes).memory
    plain = plan_with(monkeypatch, 1 << 30, max_batch_size=3).memory
    assert (ample.num_pages, ample.num_window_pages) == (plain.num_pages, plain.num_window_pages)
    assert 2 * ample.kv_bytes == plain.kv_bytes and ample.cache_format == "float8_e4m3fn"
    short = plan_with(monkeypatch, WEIGHTS + 10 * PAGE_BYTES, **wishes).memory
    assert short.num_pages + short.num_window_pages > 20


def test_less_memory_gives_fewer_pages(monkeypatch):
    plan = plan_with(monkeypatch, WEIGHTS + 10 * PAGE_BYTES + PAGE_BYTES - 1, max_batch_size=3)
    assert plan.memory.num_pages == plan.memory.num_window_pages == 10
    assert (plan.max_length, plan.max_batch_size) == (1000, 3)


def test_less_memory_still_gives_fewer_requests_at_a_time(monkeypatch):
    """Three hold 6 sliding pages and the cache 1; with fewer full ones none would fit alone."""
    plan = plan_with(monkeypatch, WEIGHTS + 13 * LAYER_BYTES, max_batch_size=3)
    assert (plan.memory.num_pages, plan.memory.num_window_pages) == (8, 5)
    assert (plan.max_length, plan.max_batch_size, plan.memory.num_full_length) == (1000, 2, 1)


def test_little_memory_shrinks_the_length(monkeypatch):
    plan = plan_with(monkeypatch, WEIGHTS + 3 * PAGE_BYTES)
    assert plan.memory.num_pages == plan.memory.num_window_pages == 3
    assert plan.max_length == 3 * 128


def test_utilization_is_of_what_is_free(monkeypatch):
    free = 2 * (WEIGHTS + 5 * PAGE_BYTES)
    plan = plan_with(monkeypatch, free, device_memory_utilization=0.5)
    assert (plan.memory.num_pages, plan.memory.num_window_pages) == (7, 3)
    assert plan.memory.available_bytes == free // 2
    assert plan.memory == plan_with(monkeypatch, free // 2).memory


@pytest.mark.parametrize("length, pages", [(1, 1), (128, 1), (129, 2), (1000, 8)])
def test_a_wished_length_rounds_up_to_pages(monkeypatch, length, pages):
    plan = plan_with(monkeypatch, 1 << 30, max_length=length, max_batch_size=2)
    assert plan.max_length == length and plan.memory.num_pages == 2 * 2 * pages


@pytest.mark.parametrize("page_size, pages", [(64, 16), (128, 8), (256, 4)])
def test_pages_of_the_wished_size(monkeypatch, page_size, pages):
    plan = plan_with(monkeypatch, 1 << 30, kv_cache_page_size=page_size, max_batch_size=1)
    memory = plan.memory
    assert (memory.page_size, memory.num_pages) == (page_size, 2 * pages)
    used = (memory.num_pages + memory.num_window_pages) * LAYER_BYTES * page_size // 128
    assert memory.kv_bytes == used


def test_what_is_handed_on(monkeypatch):
    wishes = {
        "max_batch_input_tokens": 100,
        "enable_in_flight_batching": False,
        "enable_prefix_caching": False,
        "max_queue_size": 7,
    }
    plan = plan_with(monkeypatch, 1 << 30, **wishes)
    assert {name: getattr(plan, name) for name in wishes} == wishes
    assert plan.memory.num_window_pages == 8 * 2 + 1 + 2 * 8 * 8 // 16


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
        f"memory is short: the weights take {weights:.2f} GB and a step 0.00 GB, but 0.75 GB "
        "may be used (0.75 of what is free); use a device with more, mxfp4 instead of bfloat16, a "
        "lower max_batch_input_tokens, or free memory on it"
    )


def test_room_for_the_weights_alone_is_not_enough(monkeypatch):
    with pytest.raises(ConfigError) as error:
        plan_with(monkeypatch, WEIGHTS + PAGE_BYTES, max_length=1000)
    assert str(error.value) == (
        "memory is short: the KV cache of one request of 1000 tokens takes 0.00 GB, but 0.00 GB is "
        "left for it; lower max_length to 128, raise device_memory_utilization or free memory on "
        "the device"
    )


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
        ("max_queue_size", 0, "max_queue_size must be at least 1; got 0"),
        ("max_batch_input_tokens", 0, "max_batch_input_tokens must be at least 1; got 0"),
        ("kv_cache_page_size", 100, "kv_cache_page_size must be 64, 128 or 256; got 100"),
    ],
)
def test_wishes_out_of_range(name, value, message):
    with pytest.raises(ConfigError) as error:
        EngineConfig(**{name: value})
    assert str(error.value) == message


def test_a_step_must_hold_a_token_of_every_request():
    with pytest.raises(ConfigError, match="^max_batch_input_tokens must .* got 7 and 8$"):
        EngineConfig(max_batch_input_tokens=7, max_batch_size=8)


@pytest.mark.parametrize("tokens, size", [(8192, 8), (5, 5)])
def test_without_a_wish_the_cpu_runs_eight(monkeypatch, tokens, size):
    assert plan_with(monkeypatch, 1 << 30, max_batch_input_tokens=tokens).max_batch_size == size


def test_the_page_size_of_the_test_is_the_caches():
    cache = KVCache.empty(CONFIG, 1, 1, torch.bfloat16, CPU)
    assert sum(k.nbytes + v.nbytes for k, v in cache.layers) == PAGE_BYTES
