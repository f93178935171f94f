"""`haast bench`: its output from start to end, rehearsed on the CPU, and its refusals."""

import json
import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from tests.bench.rehearsal import rehearse, write_small_model

SCRIPT = Path(__file__).parents[2] / "scripts/bench_mxfp4_grouped_matmul_ragged.py"
GROUPED = ("--P", 40, "--K", 96, "--N", 32, "--which", "down", "--experts", 5)
MACHINE = {"bench", "date", "commit", "gpu", "driver", "torch", "triton", "l2_bytes", "ceilings"}


@pytest.fixture
def rehearsal(monkeypatch):
    with rehearse(monkeypatch):
        yield


@pytest.fixture
def small_model(tmp_path):
    return write_small_model(tmp_path)


@pytest.mark.usefixtures("rehearsal")
def test_grouped_prints_the_baselines_lines_first_and_json_last(haast, tmp_path):
    out = tmp_path / "results.jsonl"
    outcome = haast("bench", "grouped", *GROUPED, "--warmup", 2, "--iters", 3, "--out", out)
    assert outcome.code == 0 and outcome.err == ""
    first, second, *_, last = outcome.out.splitlines()
    assert first == "MXFP4 grouped matmul: 0.0180 ms/iter"
    assert second == "BF16 grouped matmul: 0.0540 ms/iter"
    document = json.loads(last)
    assert set(document) > MACHINE
    assert (document["P"], document["which"], document["mxfp4"]["replays"]) == (40, "down", 3)
    haast("bench", "grouped", *GROUPED, "--seed", 1, "--out", out)
    lines = out.read_text().splitlines()
    assert lines[0] == last and [json.loads(line)["seed"] for line in lines] == [0, 1]


@pytest.mark.usefixtures("rehearsal")
def test_ops_prints_a_row_a_call_and_json_last(haast, small_model, tmp_path):
    words = ("--model", small_model, "--tokens", "1,3", "--op", "sample", "--op", "rms_norm")
    outcome = haast("bench", "ops", *words, "--iters", 4)
    assert outcome.code == 0 and outcome.err == ""
    *lines, last = outcome.out.splitlines()
    shown = [line.split() for line in lines]
    assert [(words[0], words[1], words[3]) for words in shown] == [
        (op, tokens, "40.00") for op in ("sample", "rms_norm") for tokens in ("1", "3")
    ]
    assert lines[0].endswith("us  sample_bf16")
    rows = json.loads(last)["rows"]
    # V = 4096 or H = 64, three times 20,000 bytes of cache to get past, at most 200
    assert [row["sets"] for row in rows] == [8, 3, 200, 118]
    assert rows[2]["symbols"] == ["rms_norm_bf16"]


@pytest.mark.usefixtures("rehearsal")
def test_head_prints_both_heads_and_json_last(haast, small_model):
    words = ("--model", small_model, "--tokens", "1,3", "--top-k", 7, "--iters", 4)
    outcome = haast("bench", "head", *words)
    assert outcome.code == 0 and outcome.err == ""
    first, *lines, shadow, last = outcome.out.splitlines()
    assert first.split() == ["tokens", "sampled", "head", "shadow", *first.split()[4:6], "rows"]
    assert [line.split()[:2] for line in lines] == [
        [tokens, kind] for tokens in ("1", "3") for kind in ("greedy", "top_k")
    ]
    assert shadow.startswith("the shadow takes 0 MB, made in 0.")
    rows = json.loads(last)["rows"]
    assert rows[0]["shadow_bytes"] == 4096 * (64 + 8) + 8
    assert {rows[0][f"{name}_us"] for name in ("head", "shadow", "head_draw")} == {40.0}


@pytest.mark.usefixtures("rehearsal")
def test_the_script_takes_the_same_flags(capsys, monkeypatch):
    words = [str(word) for word in (*GROUPED, "--warmup", 2, "--iters", 3)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("MXFP4 grouped matmul: 0.0180 ms/iter\nBF16 ")


@pytest.mark.usefixtures("rehearsal")
def test_moe_prints_a_row_a_size_and_json_last(haast, small_model, tmp_path):
    plot, out = tmp_path / "roofline.svg", tmp_path / "results.jsonl"
    words = ("--model", small_model, "--tokens", "1,4", "--routing", "skewed", "--iters", 7)
    outcome = haast("bench", "moe", *words, "--plot", plot, "--out", out)
    assert outcome.code == 0 and outcome.err == ""
    first, head, one, four, last = outcome.out.splitlines()
    assert "skewed routing; ceilings: read 3.100 TB/s (by triton)" in first
    assert head.split()[:3] == ["tokens", "rows", "experts"]
    assert one.split()[:2] == ["1", "2"] and four.split()[:2] == ["4", "8"]
    document = json.loads(last)
    assert set(document) > MACHINE and document["routing"] == "skewed"
    assert [row["tokens"] for row in document["rows"]] == [1, 4]
    for row in document["rows"]:
        assert set(row["up"]) == {"median_us", "p10_us", "p90_us", "calls", "replays"}
        assert row["up"]["replays"] == 7 and row["card"]["temperature_c"] == 55.0
    assert out.read_text() == f"{last}\n"
    ElementTree.parse(plot)


@pytest.mark.usefixtures("rehearsal")
def test_attention_prints_a_row_a_point_and_json_last(haast, small_model, tmp_path):
    out = tmp_path / "results.jsonl"
    words = ("--batches", "1,3", "--contexts", "40", "--prompts", "50", "--iters", 7)
    outcome = haast("bench", "attention", "--model", small_model, *words, "--out", out)
    assert outcome.code == 0 and outcome.err == ""
    first, head, *lines, last = outcome.out.splitlines()
    assert "ceilings: read 3.100 TB/s (by triton)" in first
    assert head.split()[:4] == ["batch", "context", "window", "us"]
    starts = [["1", "40"], ["3", "40"], ["prompt", "50"]]
    wanted = [[*start, window] for start in starts for window in ("-", "32")]
    assert [line.split()[:3] for line in lines] == wanted
    document = json.loads(last)
    assert set(document) > MACHINE and len(document["rows"]) == 6
    assert document["rows"][0]["timing"]["replays"] == 7
    assert out.read_text() == f"{last}\n"


@pytest.mark.usefixtures("rehearsal")
def test_a_rival_that_is_not_there(haast, small_model):
    words = ("--model", small_model, "--tokens", 1, "--against", "triton_kernels")
    outcome = haast("bench", "moe", *words)
    assert outcome.code == 2 and "triton_kernels cannot be imported" in outcome.err


@pytest.mark.usefixtures("rehearsal")
def test_a_shape_that_cannot_be_packed(refused):
    text = refused("bench", "grouped", *GROUPED, "--N", 100)
    assert text.endswith("N must be a multiple of 16 and K of 32")


@pytest.mark.parametrize("bench", ["grouped", "moe", "attention"])
def test_without_a_hopper_gpu(refused, monkeypatch, bench):
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    text = refused("bench", bench)
    assert text == "kernels need compute capability 9.0, cuda:0 has 8.0"


@pytest.mark.parametrize(
    "words, text",
    [
        (("moe", "--tokens", "few"), "positive numbers with commas between; got 'few'"),
        (("moe", "--routing", "x"), "'x' is not one of 'uniform', 'skewed'"),
        (("moe", "--against", "x"), "'x' is not"),
        (("moe", "--model", "gpt-oss-7b"), "gpt-oss-7b: neither"),
        (("attention", "--contexts", "1,x"), "positive numbers with commas between; got '1,x'"),
        (("grouped", "--P", "0"), "0 is not in the range"),
        (("grouped", "--which", "up"), "'up' is not one of 'gate_up', 'down'"),
        (("encode",), "No such command 'encode'"),
    ],
)
def test_bad_values(refused, words, text):
    assert text in refused("bench", *words)
