"""`haast generate` when all is well: what goes to standard output, and what beside it."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from haast import LLM
from haast.config import OpChoice
from haast.engine.load import prepare
from haast.harmony import TEMPLATE_PATH, Tokenizer
from haast.model.locate import demo_folder
from haast.ops import MODEL_OPS
from haast.reply_stream import TextDelta

ASK = ("generate", "--prompt", "What is a bald eagle?", "--temperature", "0")
ANSWER = (
    "A bald eagle is a large eagle of North America that has a white head and dark wings and body."
)
FIGURES = [
    "load time",
    "time to first token",
    "prompt tokens",
    "prompt speed",
    "generated tokens",
    "decode speed",
    "peak memory",
]


def test_the_program_prints_the_answer_and_nothing_else_on_stdout():
    command = [sys.executable, "-m", "haast", *ASK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, ANSWER + "\n")
    assert "eagle of North" not in done.stderr and "asks" not in done.stderr
    assert [name for name in FIGURES if name not in done.stderr] == []


def test_without_model_path_it_says_which_model_answers(haast, tiny_copy):
    bundled = haast(*ASK, "--max-new-tokens", 2)
    assert bundled.err.startswith(f"model: hf-mxfp4 layout in {demo_folder()} (1 file, ")
    assert "(bundled; --model-path names another)" in bundled.err.splitlines()[0]
    named = haast(*ASK, "--max-new-tokens", 2, "--model-path", tiny_copy)
    assert str(tiny_copy) in named.err and "bundled" not in named.err


def test_reasoning_is_printed_only_when_asked_for(haast):
    shown = haast(*ASK, "--show-reasoning", "--reasoning-effort", "low")
    assert shown.code == 0
    assert shown.out == f'Define "bald eagle".\n\n{ANSWER}\n'
    hidden = haast(*ASK, "--reasoning-effort", "low")
    assert hidden.out == ANSWER + "\n" and "Define" not in hidden.err


def test_an_answer_that_never_came_is_explained(haast):
    outcome = haast(*ASK, "--max-new-tokens", 5)
    assert (outcome.code, outcome.out) == (0, "\n")
    assert (
        "haast: the model gave no answer (5 tokens, finish reason length; "
        "the reasoning used them up, raise --max-new-tokens)\n"
    ) in outcome.err


def test_json_is_one_document(haast):
    outcome = haast(*ASK, "--json", "--conversation-date", "2026-01-31")
    assert (outcome.code, outcome.err) == (0, "")
    document = json.loads(outcome.out)
    assert document["text"] == ANSWER
    assert "bald eagle" in document["reasoning"] and document["reasoning"] not in ANSWER
    assert document["finish_reason"] == "stop"
    assert document["tool_calls"] == [] and document["anomalies"] == {}
    text = Tokenizer(demo_folder() / "tokenizer.json").decode(document["token_ids"])
    assert text.endswith(f"<|channel|>final<|message|>{ANSWER}<|return|>")
    timings = document["timings"]
    assert timings["generated_tokens"] == len(document["token_ids"])
    assert 0 < timings["ttft_s"] < timings["total_s"] and timings["load_s"] > 0
    assert timings["peak_memory_bytes"] > 19_000_000
    plan = document["plan"]
    assert plan["model_path"] == str(demo_folder())
    assert (plan["layout"], plan["encoding"], plan["device"]) == ("hf-mxfp4", "mxfp4", "cpu")
    assert {op["op"]: op["implementation"] for op in plan["ops"]}["moe_up"] == "reference"


def test_every_encoding_gives_the_same_tokens(haast):
    documents = {
        name: json.loads(
            haast(*ASK, "--json", "--quantization-encoding", name, "--reasoning-effort", "low").out
        )
        for name in ("auto", "mxfp4", "float4_e2m1fnx2", "bfloat16")
    }
    assert {name: d["plan"]["encoding"] for name, d in documents.items()} == {
        "auto": "mxfp4",
        "mxfp4": "mxfp4",
        "float4_e2m1fnx2": "mxfp4",
        "bfloat16": "bfloat16",
    }
    assert len({tuple(d["token_ids"]) for d in documents.values()}) == 1
    sizes = [documents[name]["plan"]["memory"]["weight_bytes"] for name in ("mxfp4", "bfloat16")]
    assert sizes[0] < 0.5 * sizes[1]


def test_all_flags_at_once(haast, tmp_path):
    module = tmp_path / "mine.py"
    module.write_text(
        "from haast.model.gpt_oss import GptOss\n"
        "from haast.model.registry import Architecture\n"
        "ARCHITECTURES = [Architecture('MineForCausalLM', GptOss)]\n"
    )
    flags = {
        "--model-path": demo_folder(),
        "--prompt": "Hello",
        "--devices": "cpu",
        "--quantization-encoding": "float4_e2m1fnx2",
        "--chat-template": TEMPLATE_PATH,
        "--max-length": 300,
        "--max-new-tokens": 4,
        "--temperature": 0.7,
        "--top-k": 5,
        "--top-p": 0.9,
        "--min-p": 0.05,
        "--seed": 3,
        "--stop": "never",
        "--reasoning-effort": "high",
        "--device-memory-utilization": 0.5,
        "--max-batch-size": 2,
        "--custom-architectures": module,
    }
    words = [word for pair in flags.items() for word in pair]
    outcome = haast("generate", *words, "--ignore-eos", "--json", "--pretty-print-config")
    assert outcome.code == 0
    document = json.loads(outcome.out)
    assert len(document["token_ids"]) == 4 and document["finish_reason"] == "length"
    assert (document["plan"]["max_length"], document["plan"]["max_batch_size"]) == (300, 2)
    assert document["plan"]["memory"]["num_pages"] == 2 * 3
    assert outcome.err.startswith("configuration:\n")


def test_stop_ends_the_answer_before_the_text(haast):
    outcome = haast(*ASK, "--reasoning-effort", "low", "--stop", "zebra", "--stop", " that has")
    assert outcome.out == "A bald eagle is a large eagle of North America\n"


def test_ignore_eos_goes_on(haast):
    few = ("--reasoning-effort", "low", "--json", "--max-new-tokens", 60)
    plain = json.loads(haast(*ASK, *few).out)
    further = json.loads(haast(*ASK, *few, "--ignore-eos").out)
    assert plain["finish_reason"] == "stop" and len(plain["token_ids"]) < 60
    assert len(further["token_ids"]) == 60 and further["finish_reason"] == "length"
    assert further["token_ids"][: len(plain["token_ids"])] == plain["token_ids"]
    assert further["text"] == ANSWER


def test_same_seed_same_tokens(haast):
    def tokens(seed):
        words = ("--temperature", "3", "--seed", seed, "--max-new-tokens", 8, "--json")
        return json.loads(haast(*ASK[:3], *words).out)["token_ids"]

    assert tokens(1) == tokens(1) != tokens(2)


@pytest.mark.parametrize("flags", [(), ("--show-reasoning",)])
def test_a_tool_call_is_no_answer(haast, monkeypatch, flags):
    honest = LLM.stream

    def calling(self, *arguments, **options):
        yield TextDelta("tool_call", '{"word":"eagle"}')
        yield from honest(self, *arguments, **options)

    monkeypatch.setattr(LLM, "stream", calling)
    outcome = haast(*ASK, *flags)
    assert outcome.out.endswith(ANSWER + "\n") and "word" not in outcome.out


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
        "kv cache": "2.4 MB in 6 pages of 128",
        "kv tokens": "768",
        "full-length requests": "1",
    }
    assert expected.items() <= rows.items()
    no_kernel, no_gpu = "no kernel in its table", "kernels need a Hopper GPU, this is cpu"
    assert {op.name: rows[op.name] for op in MODEL_OPS} == {
        op.name: f"reference ({no_gpu if op.kernels else no_kernel})" for op in MODEL_OPS
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


@pytest.mark.parametrize("flags", [("--pretty-print-config",), ASK[1:], (*ASK[1:], "--json")])
def test_the_plans_warning_is_one_line(haast, monkeypatch, flags):
    planned_as(monkeypatch, warning="kernels are not built")
    outcome = haast("generate", *flags, "--max-length", 700)
    assert outcome.code == 0 and "haast: warning" not in outcome.out
    lines = [line for line in outcome.err.splitlines() if "warning:" in line]
    assert lines == ["haast: warning: kernels are not built"]


@pytest.mark.parametrize(
    "flag, name, value",
    [
        ("--model", "model_path", demo_folder()),
        ("--max-model-len", "max_length", 256),
        ("--max-num-seqs", "max_batch_size", 3),
    ],
)
def test_spellings_of_vllm_are_known(haast, flag, name, value):
    rows = printed_config(haast("generate", "--pretty-print-config", flag, value))
    assert rows[name] == str(value)
