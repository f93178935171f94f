"""The stress of dependent launches: rehearsed without a GPU, run with one and late kernels."""

import pytest
import torch

from haast import ops
from haast.bench.machine import why_no_hopper
from haast.config import EngineConfig
from haast.cuda import launcher
from haast.engine.load import prepare
from haast.engine.loading import load
from haast.engine.op_choice import choose_decode_step
from haast.model.config_file import read_model_config
from haast.ops import PERSISTENT

from . import delays
from .delays import FOLDER, NUM_LAYERS, Cubins, count_wrong, differences, expected, small_config

REPLAYS = 300


@pytest.fixture
def late():
    """The folder of late kernels; skips without it, or a GPU that could run them."""
    reason = why_no_hopper()
    if reason is not None:
        pytest.skip(reason)
    if not (FOLDER / delays.PLANTED.name / "planted.cubin").is_file():
        pytest.skip(f"no late kernels; run: python3 -m tests.cuda.delays build --cubins {FOLDER}")
    return FOLDER


def test_late_kernels_change_no_bit(late):
    steps = {1: 500, 8: 300, 16: 200, 64: 100, 96: 60}
    assert differences(late, steps) == {batch: [] for batch in steps}


def test_a_planted_race_is_caught(late):
    assert count_wrong(late, "planted_right", REPLAYS) == 0
    assert count_wrong(late, "planted_reads_early", REPLAYS) > 0
    assert count_wrong(late, "planted_writes_early", REPLAYS) > 0


def test_what_a_chain_computes():
    assert expected(0, 3).tolist() == [0, 0, 0]
    assert expected(1, 3).tolist() == [0, 1, 2]
    assert expected(2, 3).tolist() == [3 * 2 + 0, 3 * 1 + 1, 3 * 0 + 2]
    assert expected(60, 5).dtype == torch.int32


def test_cubins_are_swapped_and_swapped_back(tmp_path):
    before = launcher.CUBINS, launcher._library, launcher._kernel
    cubins = Cubins(tmp_path)
    with cubins.used():
        assert launcher.CUBINS == tmp_path and launcher._kernel is not before[2]
        with pytest.raises(launcher.KernelError):
            launcher._library("rms_norm")
    assert (launcher.CUBINS, launcher._library, launcher._kernel) == before


def test_the_model_has_real_sizes_and_few_layers(tmp_path, monkeypatch):
    config = read_model_config(small_config(tmp_path) / "config.json")
    assert (config.num_layers, config.hidden_size, config.num_experts) == (NUM_LAYERS, 2880, 32)
    assert set(config.windows) == {128, None}
    engine = EngineConfig(devices="gpu")
    monkeypatch.setattr("haast.engine.op_choice.why_no_kernels", lambda device: None)
    monkeypatch.setattr("haast.engine.op_choice.num_ctas_of", lambda device: delays.CTAS)
    chosen = choose_decode_step(engine, config, "mxfp4", [torch.device("cuda")])
    assert 1 in delays.STEPS and chosen.implementation == PERSISTENT, "one request runs its kernel"


def test_a_batch_is_told_by_tokens_logits_and_caches():
    prepared = prepare(EngineConfig(devices="cpu", max_batch_size=3, max_length=200))
    loaded = load(prepared, frozenset())
    tokens, sums, caches = delays.generate(loaded, prepared.config, 3, 5)
    assert [len(ids) for ids in tokens] == [5] * 3 and len(sums) == 5
    assert len(caches) == 2 * prepared.config.num_layers and caches[0].any()
    assert isinstance(ops.sample, ops.Op), "put back"
    found, loaded.model.parameters.layers[0].sinks[0] = caches[-1].clone(), 9.0
    _, other_sums, others = delays.generate(loaded, prepared.config, 3, 5)
    assert (sums != other_sums).any() and not torch.equal(found, others[-1])


def test_differences_name_what_changed(monkeypatch, tmp_path):
    """A fake engine whose keys, logits or tokens depend on the kernels."""
    late = {"tokens": 0, "logits": 0, "keys": 0}

    def generate(loaded, config, batch, num_tokens):
        is_late = loaded == "late" and launcher.CUBINS == tmp_path
        changes = {name: value if is_late else 0 for name, value in late.items()}
        sums = torch.zeros(num_tokens, dtype=torch.int64)
        sums[-1] += changes["logits"]
        caches = [torch.zeros(2, dtype=torch.bfloat16) for _ in range(4)]
        caches[3] += changes["keys"]
        return [changes["tokens"]], sums, caches

    monkeypatch.setattr(delays, "engines", lambda: ("plain", "late", None))
    monkeypatch.setattr(delays, "generate", generate)
    assert differences(tmp_path, {1: 5, 8: 3}) == {1: [], 8: []}
    late |= {"tokens": 1, "logits": 1, "keys": 1}
    said = ["keys or values of layer 1", "logits of 1 steps from 4", "tokens"]
    assert differences(tmp_path, {1: 5}) == {1: said}
