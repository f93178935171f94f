"""Two pools of pages, one for each kind of layer, and what a position takes in them."""

from dataclasses import replace
from pathlib import Path

import torch

from haast.model.config_file import parse_model_config, read_model_config
from haast.model.kv_cache import PAGE_SIZE, KVCache, TokenBytes
from haast.model.locate import packaged_folder

from .helpers import CPU, TINY

CONFIG = parse_model_config(TINY, Path("config.json"))


def test_each_layer_has_the_pages_of_its_pool():
    cache = KVCache.empty(CONFIG, 5, 3, torch.bfloat16, CPU)
    pages = [3 if window else 5 for window in CONFIG.windows]
    assert len(set(pages)) == 2
    for (k, v), count in zip(cache.layers, pages, strict=True):
        assert k.shape == v.shape == (count, 2, PAGE_SIZE, 16) and k.dtype == torch.bfloat16
        assert k.is_contiguous() and v.is_contiguous() and k.data_ptr() != v.data_ptr()


def test_bytes_are_those_of_the_tensors():
    for dtype in (torch.bfloat16, torch.float32, torch.float8_e4m3fn):
        cache = KVCache.empty(CONFIG, 7, 2, dtype, CPU)
        held = sum(k.nbytes + v.nbytes for k, v in cache.layers)
        each = TokenBytes.of(CONFIG, dtype)
        assert held == PAGE_SIZE * (7 * each.full + 2 * each.window)
        assert each.total == each.full + each.window


def test_bytes_of_the_published_model():
    """2 kB a layer: 24 kB in each pool of gpt-oss-20b."""
    config = read_model_config(packaged_folder("gpt-oss-20b") / "config.json")
    assert TokenBytes.of(config, torch.bfloat16) == TokenBytes(24 * 1024, 24 * 1024)
    assert TokenBytes.of(config, torch.float8_e4m3fn) == TokenBytes(12 * 1024, 12 * 1024)
    only_full = replace(config, windows=(None,) * config.num_layers)
    assert TokenBytes.of(only_full, torch.bfloat16) == TokenBytes(48 * 1024, 0)
