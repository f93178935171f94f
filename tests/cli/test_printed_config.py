"""`haast generate --pretty-print-config`: wishes, decisions and warnings."""

import re
from dataclasses import replace

import pytest

from haast.config import OpChoice
from haast.engine.load import prepare
from haast.model.locate import demo_folder
from haast.ops import MODEL_OPS

ASK = ("--prompt", "What is a bald eagle?", "--temperature", "0")


def printed_config(outcome) -> dict[str, str]:
    """Rows of --pretty-print-config; a plan's row comes after the wish of the same name."""
    rows = (re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in outcome.err.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def test_pretty_printed_config_names_what_was_decided(haast, nothing_loads):
    outcome = haast("generate", "--pretty-print-config", "--max-length", 700)
    assert (outcome.code, outcome.out) == (0, "")
    rows = printed_config(outcome)
    expected = {
        "model": str(demo_folder()),
        "architecture": "GptOssForCausalLM",
        "layout": "hf-mxfp4",
        "files": "model.safetensors",
        "encoding": "mxfp4",
        "experts": "bytes in checkpoint order",
        "device": "cpu",
        "device_memory_utilization": "0.9",
        "max_length": "700",
        "weights": "19.0 MB",
        "workspace": "0.0 MB for a step and graphs",
        "kv cache": "4.1 MB in 12 + 9 pages of 128 (full + sliding layers)",
        "kv tokens": "1536",
        "full-length requests": "2",
        "language-model head": "whole",
        "guesses": "none",
        "CUDA graphs": "none",
    }
    assert expected.items() <= rows.items()
    no_kernel, no_gpu = "no kernel in its table", "kernels need a Hopper GPU, this is cpu"
    assert {op.name: rows[op.name] for op in MODEL_OPS} == {
        op.name: f"reference ({no_gpu if op.has_kernels else no_kernel})" for op in MODEL_OPS
    }
    assert "grouped_matmul" not in rows and "warning" not in outcome.err


def planned_as(monkeypatch, **changes):
    """The plan of the bundled model, in part another one, as prepare gives it."""

    def changed(config):
        prepared = prepare(config)
        return replace(prepared, plan=replace(prepared.plan, **changes))

    monkeypatch.setattr("haast.engine.load.prepare", changed)
    monkeypatch.setattr("haast.llm.prepare", changed)


def test_pretty_printed_config_of_a_hopper_gpu(haast, monkeypatch, nothing_loads):
    choice = OpChoice("moe_up", None, "the first that accepts the call: small, wide")
    planned_as(monkeypatch, is_swizzled=True, ops=(choice,))
    rows = printed_config(haast("generate", "--pretty-print-config"))
    assert rows["moe_up"] == "kernels (the first that accepts the call: small, wide)"
    assert rows["experts"] == "bytes swizzled for kernels"
    planned_as(monkeypatch, encoding="bfloat16")
    assert printed_config(haast("generate", "--pretty-print-config"))["experts"] == "dense"


@pytest.mark.parametrize("flags", [("--pretty-print-config",), ASK, (*ASK, "--json")])
def test_the_plans_warning_is_one_line(haast, monkeypatch, flags):
    planned_as(monkeypatch, warning="kernels are not built")
    outcome = haast("generate", *flags, "--max-length", 700)
    assert outcome.code == 0 and "haast: warning" not in outcome.out
    lines = [line for line in outcome.err.splitlines() if "warning:" in line]
    assert lines == ["haast: warning: kernels are not built"]


@pytest.mark.parametrize(
    "flags, name, value",
    [
        ((), "enable_in_flight_batching", True),
        (("--no-enable-in-flight-batching",), "enable_in_flight_batching", False),
        (("--enable-in-flight-batching",), "enable_in_flight_batching", True),
        (("--no-enable-prefix-caching",), "enable_prefix_caching", False),
        (("--enable-prefix-caching",), "enable_prefix_caching", True),
        (("--kv-cache-page-size", 64), "kv_cache_page_size", 64),
        (("--max-batch-input-tokens", 99), "max_batch_input_tokens", 99),
        ((), "max_batch_size", 1),
    ],
)
def test_options_of_the_engine(haast, nothing_loads, flags, name, value):
    rows = printed_config(haast("generate", "--pretty-print-config", *flags))
    assert rows[name] == str(value)
    size = rows["kv cache"].split(" pages of ")[1].split()[0]
    assert size == ("64" if name == "kv_cache_page_size" else "128")


@pytest.mark.parametrize(
    "flag, name, value",
    [
        ("--model", "model_path", demo_folder()),
        ("--max-model-len", "max_length", 256),
        ("--max-num-seqs", "max_batch_size", 3),
        ("--max-num-batched-tokens", "max_batch_input_tokens", 1024),
    ],
)
def test_spellings_of_vllm_are_known(haast, flag, name, value):
    rows = printed_config(haast("generate", "--pretty-print-config", flag, value))
    assert rows[name] == str(value)


def test_guesses_are_described(haast, nothing_loads):
    flags = ("--speculative-config", '{"method": "ngram", "num_speculative_tokens": 3}')
    rows = printed_config(haast("generate", "--pretty-print-config", "--max-length", 700, *flags))
    assert rows["guesses"] == "up to 3 tokens at a time, 3 a step, by n-grams of 3 to 5"
