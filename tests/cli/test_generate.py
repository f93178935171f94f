"""`haast generate` when all is well: what goes to standard output, and what beside it."""

import json
import subprocess
import sys
from dataclasses import fields

import pytest

from haast import LLM, SamplingParams
from haast.harmony import TEMPLATE_PATH, Tokenizer
from haast.model.locate import demo_folder
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
        "--max-batch-input-tokens": 50,
        "--kv-cache-page-size": 64,
        "--repetition-penalty": 1.1,
        "--presence-penalty": 0.1,
        "--frequency-penalty": -0.1,
        "--min-tokens": 3,
        "--stop-token-ids": 17,
    }
    words = [word for pair in flags.items() for word in pair]
    words += ["--ignore-eos", "--json", "--pretty-print-config"]
    words += ["--no-enable-prefix-caching", "--no-enable-in-flight-batching"]
    outcome = haast("generate", *words)
    assert outcome.code == 0
    document = json.loads(outcome.out)
    assert len(document["token_ids"]) == 4 and document["finish_reason"] == "length"
    assert (document["plan"]["max_length"], document["plan"]["max_batch_size"]) == (300, 2)
    assert document["plan"]["memory"]["num_pages"] == 2 * 2 * 5
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


def test_stop_token_ids_end_the_answer(haast):
    few = ("--reasoning-effort", "low", "--json")
    plain = json.loads(haast(*ASK, *few).out)["token_ids"]
    assert len({*plain[10:14]}) == 4 and not {*plain[10:14]} & {*plain[:10]}
    stops = ("--stop-token-ids", plain[13], "--stop-token-ids", plain[11])
    document = json.loads(haast(*ASK, *few, *stops).out)
    assert document["token_ids"] == plain[:12] and document["finish_reason"] == "stop"
    held = json.loads(haast(*ASK, *few, *stops, "--min-tokens", 12).out)["token_ids"]
    assert held[:11] == plain[:11] and held[11] != plain[11]


def test_penalties_change_the_answer(haast):
    few = ("--reasoning-effort", "low", "--json", "--max-new-tokens", 60, "--ignore-eos")
    plain = json.loads(haast(*ASK, *few).out)["token_ids"]
    changed = [
        json.loads(haast(*ASK, *few, flag, value).out)["token_ids"]
        for flag, value in (("--repetition-penalty", 1.9), ("--frequency-penalty", 2))
    ]
    assert min(len({*tokens}) for tokens in changed) > len({*plain}) and changed[0] != changed[1]


SAMPLING = {
    "max_new_tokens": 9,
    "min_tokens": 3,
    "temperature": 0.5,
    "top_k": 7,
    "top_p": 0.25,
    "min_p": 0.125,
    "repetition_penalty": 1.5,
    "presence_penalty": -0.5,
    "frequency_penalty": 0.75,
    "seed": 12,
    "ignore_eos": True,
    "stop": ("a", "b"),
    "stop_token_ids": (4, 5),
}


def test_options_fill_the_sampling_settings(haast, monkeypatch):
    given = []
    stream = LLM.stream
    monkeypatch.setattr(
        LLM,
        "stream",
        lambda self, prompt, params, **chat: (
            given.append(params) or stream(self, prompt, params, **chat)
        ),
    )
    assert haast("generate", "--prompt", "Hi").code == 0 and given == [SamplingParams()]
    words = []
    for name, value in SAMPLING.items():
        for each in value if isinstance(value, tuple) else (value,):
            words += [f"--{name.replace('_', '-')}", *([] if each is True else [each])]
    assert haast("generate", "--prompt", "Hi", *words).code == 0
    assert given[1:] == [SamplingParams(**SAMPLING)]
    left_out = {f.name for f in fields(SamplingParams)} - {*SAMPLING}
    assert left_out == {"allowed_token_ids", "grammar", "logit_bias", "logprobs", "n"}


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
