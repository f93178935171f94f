"""The flags of `haast serve` as users of MAX and vLLM type them, and its plan as printed."""

from dataclasses import asdict
from pathlib import Path

import msgspec
import pytest

import haast.harmony
from haast.config import EngineConfig, SpeculativeConfig
from haast.engine.load import prepare
from haast.serve.messages import EngineInfo, to_plain

ROOT = Path(__file__).parents[2]
TEMPLATE = Path(haast.harmony.__file__).with_name("chat_template.jinja")
MODULE = ROOT / "examples" / "custom_architecture.py"
GUESSES = SpeculativeConfig("ngram")
BASELINE = f"""--model-path X --quantization-encoding float4_e2m1fnx2 --devices gpu:0
    --chat-template {TEMPLATE} --device-memory-utilization 0.9 --max-batch-size 512
    --max-length 131072 --enable-in-flight-batching --pretty-print-config
    --custom-architectures {MODULE}""".split()


class Asked:
    config = settings = listening = chat_template = None


@pytest.fixture
def serve(haast, monkeypatch):
    """serve(*arguments) -> what would be run; an engine on the CPU is planned, none is loaded."""
    asked = Asked()

    def run(client, settings, listening, chat_template, progress, on_ready):
        asked.config, asked.settings = client.config, settings
        asked.listening, asked.chat_template = listening, chat_template
        plan = prepare(EngineConfig(devices="cpu", max_length=640)).plan
        plain = msgspec.to_builtins(asdict(plan), enc_hook=to_plain)
        sizes = {"max_length": 640, "max_batch_size": 8, "vocab_size": 9, "kv_tokens": 1280}
        on_ready(EngineInfo(model_path="", found="", tokenizer="", plan=plain, load_s=0, **sizes))

    monkeypatch.setattr("haast.serve.server.run", run)

    def call(*arguments):
        asked.outcome = haast("serve", *arguments)
        assert asked.outcome.code == 0, asked.outcome
        return asked

    return call


def test_the_baselines_command(serve):
    asked = serve(*BASELINE)
    assert asked.config == EngineConfig(
        model_path=Path("X"),
        quantization_encoding="float4_e2m1fnx2",
        devices="gpu:0",
        chat_template=TEMPLATE,
        device_memory_utilization=0.9,
        max_batch_size=512,
        max_length=131072,
        enable_in_flight_batching=True,
        custom_architectures=(str(MODULE),),
    )
    assert asked.chat_template == TEMPLATE and asked.settings.models == ("X",)


def test_the_printed_config_has_everything_but_keys(serve):
    err = serve("--pretty-print-config", "--api-key", "hush", "--port", 9).outcome.err
    titles = [line for line in err.splitlines() if line[:1].strip() and line.endswith(":")]
    assert titles == ["configuration:", "plan:", "memory:", "ops:", "server:"]
    rows = dict(line.split(maxsplit=1) for line in err.splitlines() if line.startswith("  "))
    assert (rows["port"], rows["api_keys"], rows["max_length"]) == ("9", "1", "640")
    assert rows["moe_up"].startswith("reference (") and "hush" not in err
    assert "configuration:" not in serve().outcome.err


@pytest.mark.parametrize(
    "flag, value, name, expected",
    [
        ("--max-model-len", 99, "max_length", 99),
        ("--max-num-seqs", 4, "max_batch_size", 4),
        ("--max-num-batched-tokens", 512, "max_batch_input_tokens", 512),
        ("--gpu-memory-utilization", 0.5, "device_memory_utilization", 0.5),
        ("--kv-cache-dtype", "fp8", "kv_cache_format", "float8_e4m3fn"),
        ("--kv-cache-dtype", "auto", "kv_cache_format", "bfloat16"),
        ("--block-size", 64, "kv_cache_page_size", 64),
        ("--speculative-config", '{"method": "ngram"}', "speculative_config", GUESSES),
        ("-sc", '{"method": "ngram"}', "speculative_config", GUESSES),
        ("--model", "m", "model_path", Path("m")),
        ("--tensor-parallel-size", 1, "devices", None),
        ("-tp", 1, "devices", None),
        ("-tp", 4, "devices", "gpu:0,1,2,3"),
    ],
)
def test_vllms_names(serve, flag, value, name, expected):
    assert getattr(serve(flag, value).config, name) == expected


def test_the_model_may_stand_alone(serve):
    assert serve("org/model").config.model_path == Path("org/model")


def test_the_url_can_be_asked(serve):
    assert "ready at http://[::1]:9, " in serve("--host", "::1", "--port", 9).outcome.err


def test_a_template_that_is_not_there_is_told_before_anything_loads(refused):
    assert "'gone.jinja' does not exist" in refused("serve", "--chat-template", "gone.jinja")


def test_devices_are_named_in_one_way(refused):
    message = refused("serve", "--tensor-parallel-size", 2, "--devices", "gpu:1,2")
    assert message == "--devices is gpu:1,2 and --tensor-parallel-size is 2; give one"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--max-length 5 --max-model-len 6", "--max-length is 5 and --max-model-len is 6"),
        ("--max-model-len=6 --max-length=5", "--max-model-len is 6 and --max-length is 5"),
        ("--port 1 --api-key --port --port 2", "--port is 1 and --port is 2"),
        ("--model a --model-path b", "--model is a and --model-path is b"),
        (
            "--enable-prefix-caching --no-enable-prefix-caching",
            "--enable-prefix-caching is on and --no-enable-prefix-caching is off",
        ),
    ],
)
@pytest.mark.parametrize("command", ["serve", "generate"])
def test_one_option_with_two_values(refused, command, arguments, message):
    if command == "generate":
        arguments = arguments.replace("--api-key --port", "--stop --seed").replace("port", "seed")
        message = message.replace("port", "seed")
    assert refused(command, *arguments.split()) == f"{message}; give one"


def test_one_option_twice_with_one_value(serve):
    arguments = "--max-length 5 --max-model-len 5 --deterministic --deterministic"
    asked = serve(*arguments.split(), "--api-key", "a", "--api-key", "b")
    assert asked.config.max_length == 5 and asked.config.deterministic
    assert asked.settings.api_keys == ("a", "b")
