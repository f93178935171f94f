"""The guard lets haast-tiny pass and stops what is broken, by the check that should see it."""

import json

import pytest
import torch

from haast import LLM
from haast.__main__ import main
from haast.coherence import guard
from haast.config import ConfigError
from haast.mxfp4 import Mxfp4Weight
from haast.ops import attention, rope_kv_write

from .conftest import failed, values

EXACT, PERPLEXITY = "exact answers", "held-out perplexity"
MEDIAN, MEAN = "median distance from fp32", "mean distance from fp32"
DIVERGENCE, TOP1 = "divergence from the bf16 control", "same first choice as the control"
ALL_CHECKS = [
    "logits not finite",
    "leaked markup",
    "harmony anomalies",
    "answered",
    "worst repetition",
    EXACT,
    PERPLEXITY,
    MEDIAN,
    MEAN,
    DIVERGENCE,
    TOP1,
]


def test_haast_tiny_passes_in_full(capsys):
    """The whole guard as a user runs it, all 200 answers."""
    with pytest.raises(SystemExit) as ended:
        main(["coherence", "--json"])
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (ended.value.code, err) == (0, "")
    assert document["passed"] is True and document["skipped"] == {}
    assert "hf-mxfp4 layout" in document["model"]
    assert [check["name"] for check in document["checks"]] == ALL_CHECKS
    assert all(check["passed"] for check in document["checks"])
    by_name = {check["name"]: check for check in document["checks"]}
    assert by_name[EXACT]["value"] == 1 - len(document["wrong"]) / 200 >= 0.98
    assert 1 < by_name[PERPLEXITY]["value"] < by_name[PERPLEXITY]["limit"]
    assert by_name[DIVERGENCE]["value"] < 0.01 and not by_name[TOP1]["is_ceiling"]


def test_scales_that_are_off_by_one(judge, damaged):
    every_other = torch.arange(1 << 20) % 2
    path = damaged("_scales", lambda t: t + every_other[: t.numel()].view(t.shape).byte())
    report = judge(path)
    assert {EXACT, PERPLEXITY} <= failed(report)
    assert len(report.wrong) == 8 and values(report)[PERPLEXITY] > 1.5


@pytest.mark.parametrize("parts", [("blocks",), ("blocks", "scales", "bias")])
def test_gate_and_up_rows_swapped(judge, damaged, parts):
    suffixes = tuple(f"gate_up_proj_{part}" for part in parts)
    assert {EXACT, MEDIAN, MEAN} <= failed(judge(damaged(suffixes, swap_pairs)))


def test_nibbles_swapped(judge, damaged):
    report = judge(damaged("_blocks", lambda t: t << 4 | t >> 4))
    assert {EXACT, PERPLEXITY} <= failed(report)
    assert values(report)[EXACT] == 0 and values(report)[PERPLEXITY] > 100


@pytest.mark.parametrize("sink", [-1e4, float("-inf")])
def test_sinks_missing(judge, damaged, sink):
    report = judge(damaged(".sinks", lambda t: torch.full_like(t, sink)))
    assert {EXACT, PERPLEXITY} <= failed(report)
    assert values(report)["logits not finite"] == 0


def test_queries_turned_one_position_too_far(judge, monkeypatch):
    honest = rope_kv_write.reference

    def shifted(qkv, positions, *rest):
        queries = honest(qkv, positions + 1, *rest)
        honest(qkv, positions, *rest)
        return queries

    monkeypatch.setattr(rope_kv_write, "reference", shifted)
    report = judge()
    assert {EXACT, PERPLEXITY} <= failed(report) and values(report)[PERPLEXITY] > 3


def test_windows_forgotten(judge, monkeypatch):
    honest = attention.reference
    everything = lambda q, k, v, sinks, meta, window: honest(q, k, v, sinks, meta, None)
    monkeypatch.setattr(attention, "reference", everything)
    assert {EXACT, PERPLEXITY} & failed(judge())


@pytest.mark.parametrize(
    "suffixes, change, seen_by",
    [
        # one scale byte in a thousand is one too high
        ("_scales", lambda t: t + (torch.arange(t.numel()).view(t.shape) % 1000 == 7), {MEDIAN}),
        ("3.mlp.experts.gate_up_proj_blocks", lambda t: swap_pairs(t), {MEDIAN, MEAN}),
        ("gate_up_proj_scales", lambda t: swap_pairs(t), {MEDIAN, MEAN}),
        ("layers.2.self_attn.sinks", lambda t: torch.full_like(t, -1e4), {MEDIAN, MEAN}),
    ],
    ids=["few scales", "gate and up of one layer", "scales of gate and up", "sinks of one layer"],
)
def test_damage_that_answers_survive(judge, damaged, suffixes, change, seen_by):
    path = damaged(suffixes, lambda t: change(t).to(t.dtype))
    assert seen_by <= failed(judge(path))


@pytest.mark.parametrize("off", [-1, 1])
def test_window_off_by_one(judge, monkeypatch, off):
    honest = attention.reference

    def shifted(q, k, v, sinks, meta, window):
        return honest(q, k, v, sinks, meta, window and window + off)

    monkeypatch.setattr(attention, "reference", shifted)
    assert {MEDIAN, MEAN} <= failed(judge())


def swap_pairs(rows: torch.Tensor) -> torch.Tensor:
    """[E, 2I, ...] with each gate row and its up row exchanged."""
    return rows.view(len(rows), -1, 2, *rows.shape[2:]).flip(2).view(rows.shape)


def nibbles_of_the_last_row(weight: Mxfp4Weight) -> Mxfp4Weight:
    codes = weight.values.clone()
    codes[..., -1, :] = codes[..., -1, :] << 4 | codes[..., -1, :] >> 4
    return Mxfp4Weight(codes, weight.scales)


@pytest.mark.parametrize(
    "change, minimum",
    [
        (lambda w, dtype, honest: honest(w, dtype) * 1.1, 0.02),
        (lambda w, dtype, honest: honest(nibbles_of_the_last_row(w), dtype), 0.02),
        (lambda w, dtype, honest: honest(w, dtype).roll(32, -1), 0.5),
    ],
)
def test_only_the_mxfp4_path_is_wrong(judge, monkeypatch, change, minimum):
    honest = Mxfp4Weight.dequantize
    monkeypatch.setattr(guard, "read_suite", lambda folder: None)
    monkeypatch.setattr(Mxfp4Weight, "dequantize", lambda w, dtype: change(w, dtype, honest))
    report = judge()
    assert DIVERGENCE in failed(report) <= {DIVERGENCE, TOP1, *ALL_CHECKS[:5]}
    assert values(report)[DIVERGENCE] > minimum


def test_both_encodings_pass_and_agree(judge):
    report = judge(quantization_encoding="bfloat16")
    assert report.passed and report.wrong == () and report.skipped == {}
    assert values(report)[DIVERGENCE] == 0 and values(report)[TOP1] == 1


def test_a_cache_in_e4m3_is_held_against_one_in_bf16(judge):
    """Its cost shows in the divergence, and in distances from fp32 that may be larger."""
    report = judge(kv_cache_format="float8_e4m3fn")
    assert report.passed and report.wrong == ()
    assert 1e-4 < values(report)[DIVERGENCE] < guard.MAX_DIVERGENCE
    limits = {check.name: check.limit for check in report.checks}
    plain = {check.name: check.limit for check in judge().checks}
    more = {name for name in limits if limits[name] != plain[name]}
    assert more == {MEDIAN, MEAN} and limits[MEAN] == 1.5 * plain[MEAN]


def test_logits_that_are_no_numbers(judge, damaged):
    def poison(weight):
        weight[17] = float("nan")
        return weight

    report = judge(damaged("lm_head.weight", poison))
    assert "logits not finite" in failed(report)
    positions = values(report)["logits not finite"]
    assert positions > 3 * 80 and positions == int(positions)
    assert {PERPLEXITY, DIVERGENCE} <= failed(report)


def test_a_model_without_a_suite_and_without_room_for_its_control(judge, monkeypatch):
    loads = []

    def load(config):
        loads.append(config.quantization_encoding)
        if len(loads) == 2:
            raise ConfigError("memory is short")
        return LLM(devices="cpu", max_batch_size=16, max_length=640)

    monkeypatch.setattr(guard, "read_suite", lambda folder: None)
    monkeypatch.setattr(guard, "_load", load)
    monkeypatch.setattr("haast.engine.plan._warning", lambda device: "this GPU is slow")
    report = judge()
    assert report.warning == "this GPU is slow"
    assert loads == ["auto", "bfloat16"]
    assert report.skipped == {"agreement with the bf16 control": "memory is short"}
    assert [check.name for check in report.checks] == ALL_CHECKS[:5] and report.passed


def test_progress_is_told_prompt_by_prompt(judge, monkeypatch):
    calls = []
    answers = guard._answers
    monkeypatch.setattr(guard, "_answers", lambda *given: answers(*given[:2], tell))
    monkeypatch.setattr(guard, "read_suite", lambda folder: None)
    monkeypatch.setattr(guard, "_control_checks", lambda *given: [])

    def tell(done, total):
        calls.append((done, total))

    judge()
    assert calls == [(1, 3), (2, 3), (3, 3)]
