"""A mistake of the user's: exit code 2, one line on stderr that names the thing, no traceback."""

import json

import pytest
from safetensors.torch import load_file, save_file

from haast import LLM

ASK = ("generate", "--prompt", "Hello")


@pytest.mark.parametrize(
    "flag, value, words",
    [
        ("--temperature", "-1", "temperature must be a finite number >= 0; got -1.0"),
        ("--temperature", "nan", "temperature must be a finite number >= 0; got nan"),
        ("--temperature", "hot", "Invalid value for '--temperature': 'hot'"),
        ("--top-k", "0", "top_k must be at least 1; got 0"),
        ("--top-k", "few", "Invalid value for '--top-k': 'few'"),
        ("--top-p", "0", "top_p must be in (0, 1]; got 0.0"),
        ("--top-p", "1.5", "top_p must be in (0, 1]; got 1.5"),
        ("--min-p", "-0.1", "min_p must be in [0, 1]; got -0.1"),
        ("--min-p", "all", "Invalid value for '--min-p': 'all'"),
        ("--seed", "-1", "seed must be in [0, 2^64); got -1"),
        ("--seed", "1.5", "Invalid value for '--seed': '1.5'"),
        ("--max-new-tokens", "0", "max_new_tokens must be at least 1; got 0"),
        ("--max-new-tokens", "many", "Invalid value for '--max-new-tokens': 'many'"),
        ("--stop", "", "stop must be one or more texts, none empty"),
        ("--max-length", "0", "max_length must be at least 1; got 0"),
        ("--max-length", "long", "'--max-length' / '--max-model-len': 'long'"),
        ("--max-length", "5000", "max_length 5000 exceeds the model's 4096"),
        ("--max-batch-size", "0", "max_batch_size must be at least 1; got 0"),
        ("--max-batch-size", "x", "'--max-batch-size' / '--max-num-seqs': 'x'"),
        ("--max-batch-input-tokens", "0", "max_batch_input_tokens must be at least 1; got 0"),
        ("--max-num-batched-tokens", "x", "'--max-batch-input-tokens' / '--max-num-batched-tok"),
        ("--kv-cache-page-size", "100", "kv_cache_page_size must be 64, 128 or 256; got 100"),
        ("--speculative-config", "ngram", "'ngram' is no JSON: Expecting value"),
        ("--speculative-config", "[]", "'[]' is no JSON object"),
        ("-sc", '{"method": "eagle3"}', "speculative_config: method must be ngram; got eagle3"),
        ("--repetition-penalty", "0", "repetition_penalty must be a finite number > 0; got 0.0"),
        ("--presence-penalty", "2.5", "presence_penalty must be in [-2, 2]; got 2.5"),
        ("--frequency-penalty", "-3", "frequency_penalty must be in [-2, 2]; got -3.0"),
        ("--frequency-penalty", "nan", "frequency_penalty must be in [-2, 2]; got nan"),
        ("--min-tokens", "-1", "min_tokens must be at least 0 and at most max_new_tokens; got -1"),
        ("--stop-token-ids", "-4", "stop_token_ids must be token ids; got (-4,)"),
        ("--stop-token-ids", "eos", "Invalid value for '--stop-token-ids': 'eos'"),
        ("--device-memory-utilization", "0", "device_memory_utilization must lie in (0, 1]; got 0"),
        ("--device-memory-utilization", "2", "device_memory_utilization must lie in (0, 1]; got 2"),
        ("--device-memory-utilization", "nan", "must lie in (0, 1]; got nan"),
        ("--device-memory-utilization", "1e-6", "memory is short: the weights take 0.02 GB"),
        ("--devices", "tpu", "devices 'tpu' is not one of cpu, gpu, gpu:N, gpu:N,M,... and Nxcpu"),
        (
            "--devices",
            "gpu:x",
            "devices 'gpu:x' is not one of cpu, gpu, gpu:N, gpu:N,M,... and Nxcpu",
        ),
        ("--reasoning-effort", "extreme", "'extreme' is not one of 'low', 'medium', 'high'"),
        ("--quantization-encoding", "int4", "'int4' is not one of 'auto', 'mxfp4'"),
        ("--custom-architectures", "no/such.py", "custom architecture no/such.py: no such"),
        ("--model-path", "no/such/folder", "no/such/folder: no such file or folder"),
        ("--bogus", "1", "No such option '--bogus'"),
    ],
)
@pytest.mark.usefixtures("nothing_loads")
def test_bad_values(refused, flag, value, words):
    assert words in refused(*ASK, flag, value)


@pytest.mark.usefixtures("nothing_loads")
def test_settings_that_exclude_each_other(refused):
    text = refused(*ASK, "--min-tokens", 9, "--max-new-tokens", 5)
    assert text == "min_tokens must be at least 0 and at most max_new_tokens; got 9"
    text = refused(*ASK, "--max-batch-size", 9, "--max-batch-input-tokens", 8)
    assert text.endswith("so that every request can decode; got 8 and 9")
    text = refused(*ASK, "--deterministic")
    assert text == (
        "deterministic needs the kernel of attention, which cannot run: "
        "kernels need a Hopper GPU, this is cpu"
    )


@pytest.mark.usefixtures("nothing_loads")
def test_missing_prompt(refused):
    assert refused("generate") == "--prompt is missing: what should the model answer?"
    assert refused("generate", "--prompt") == "Option '--prompt' requires an argument."


@pytest.mark.usefixtures("nothing_loads")
def test_a_mistyped_flag_or_command_is_answered_with_the_right_one(refused):
    assert "--prompt" in refused("generate", "--promt", "Hello")
    assert refused("generat") == "no command 'generat'; did you mean generate?"
    everything = (
        "baseline, bench, chat, coherence, deploy, doctor, generate, journal, make-checkpoint, "
        "ops, plan, profile, serve"
    )
    assert refused("xyzzy") == f"no command 'xyzzy'; there are {everything}"


@pytest.mark.usefixtures("nothing_loads")
def test_folders_that_are_no_models(refused, tmp_path, tiny_copy):
    assert (
        refused(*ASK, "--model-path", tmp_path / "none")
        == f"{tmp_path}/none: no such file or folder"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused(*ASK, "--model-path", empty) == f"{empty}: no safetensors files"
    file = tiny_copy / "config.json"
    assert "not a folder; name the folder" in refused(*ASK, "--model-path", file)
    (tiny_copy / "tokenizer.json").unlink()
    assert "holds weights but no tokenizer.json" in refused(*ASK, "--model-path", tiny_copy)
    file.unlink()
    assert "holds weights but no config.json" in refused(*ASK, "--model-path", tiny_copy)


def test_a_model_that_is_not_in_the_cache(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    text = refused(*ASK, "--model-path", "openai/gpt-oss-20b")
    assert text == (
        f"openai/gpt-oss-20b: no such folder, and not in the Hugging Face cache {tmp_path}; "
        "fetch it with: hf download openai/gpt-oss-20b"
    )


@pytest.mark.parametrize("count, words", [(0, "sees no GPU"), (2, "sees 2 GPUs, numbered from 0")])
def test_a_gpu_that_is_not_there(refused, monkeypatch, nothing_loads, count, words):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    text = refused(*ASK, "--devices", "gpu:2")
    assert text.startswith("devices 'gpu:2': torch ") and words in text


def test_a_gpu_with_a_cpu_build_of_torch(refused, monkeypatch, nothing_loads):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.version.cuda", None)
    text = refused(*ASK, "--devices", "gpu")
    assert text.startswith("devices 'gpu': torch ") and "is a CPU build" in text


def test_chat_templates_that_are_missing_or_broken(refused, tmp_path, nothing_loads):
    file = tmp_path / "chat.jinja"
    template = (*ASK, "--chat-template", file)
    assert refused(*template) == f"no chat template {file}"
    file.write_text("{% for message in messages %}\n{{ message.content }}\n{% endfro %}")
    assert refused(*template).startswith(f"{file}, line 3: ")


def test_a_broken_tokenizer(refused, tiny_copy, nothing_loads):
    (tiny_copy / "tokenizer.json").write_text("{")
    text = refused(*ASK, "--model-path", tiny_copy)
    assert text.startswith(f"cannot read tokenizer {tiny_copy / 'tokenizer.json'}: ")


def test_chat_templates_that_fail_on_the_conversation(refused, tmp_path):
    file = tmp_path / "chat.jinja"
    template = (*ASK, "--chat-template", file)
    file.write_text("{{ messages[0].content.nothing.there }}")
    assert refused(*template).startswith(f"{file}, line 1: ")
    file.write_text("{{ raise_exception('no greetings') }}")
    assert refused(*template) == f"{file} refuses the conversation: no greetings"


def test_prompts_that_do_not_fit(refused):
    text = refused(*ASK, "--max-length", 20)
    assert text.endswith("tokens and 1 new ones exceed max_length 20")
    text = refused(*ASK, "--max-length", 100, "--max-new-tokens", 90)
    assert text.endswith("tokens and 90 new ones exceed max_length 100")


def test_a_scale_byte_of_255(refused, tiny_copy):
    path = tiny_copy / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.3.mlp.experts.down_proj_scales"
    tensors[name][2, 5, 1] = 255
    save_file(tensors, path, {"format": "pt"})
    for encoding in ("mxfp4", "bfloat16"):
        text = refused(*ASK, "--model-path", tiny_copy, "--quantization-encoding", encoding)
        assert text == f"{path}: tensor '{name}' has scale byte 255 (NaN) at [2, 5, 1]"


def test_a_truncated_file(refused, tiny_copy, nothing_loads):
    path = tiny_copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert str(path) in refused(*ASK, "--model-path", tiny_copy)
    path.write_bytes(b"\x00" * 4)
    assert str(path) in refused(*ASK, "--model-path", tiny_copy)


def test_an_architecture_nobody_knows(refused, tiny_copy, nothing_loads):
    config = tiny_copy / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["Other"]}))
    text = refused(*ASK, "--model-path", tiny_copy)
    assert text == (
        "architecture 'Other' is not known; known are GptOssForCausalLM; "
        "--custom-architectures adds others"
    )


def test_a_module_without_architectures(refused, tmp_path, nothing_loads):
    module = tmp_path / "empty.py"
    module.write_text("")
    text = refused(*ASK, "--custom-architectures", module)
    assert text == f"{module}: must export ARCHITECTURES, a list of Architecture"


@pytest.mark.parametrize("method", ["__init__", "stream"])
def test_ctrl_c_is_exit_code_130(haast, monkeypatch, method):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(LLM, method, interrupted)
    outcome = haast(*ASK)
    assert outcome.code == 130
    assert outcome.out == "" and "Traceback" not in outcome.err
