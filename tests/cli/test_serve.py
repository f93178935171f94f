"""`haast serve`: which wishes reach the server, and its orderly end."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest

from haast.config import EngineConfig, SpeculativeConfig
from haast.serve.client import EngineInfo
from haast.serve.server import Listening
from haast.serve.service import Settings


class Started:
    """What `haast serve` would have run."""

    client = settings = listening = chat_template = None


@pytest.fixture
def serve(haast, monkeypatch):
    """serve(*arguments) -> (Started, Outcome); nothing is loaded."""
    started = Started()

    def run(client, settings, listening, chat_template, progress, on_ready):
        started.client, started.settings = client, settings
        started.listening, started.chat_template = listening, chat_template
        plan = {"warning": None}
        sizes = {"max_length": 640, "max_batch_size": 8, "vocab_size": 9, "kv_tokens": 1280}
        on_ready(EngineInfo(model_path="", found="", tokenizer="", plan=plan, load_s=0, **sizes))

    monkeypatch.setattr("haast.serve.server.run", run)

    def call(*arguments):
        outcome = haast("serve", *arguments)
        assert outcome.code == 0, outcome
        return started, outcome

    return call


def test_defaults(serve):
    started, outcome = serve()
    assert started.client.config == EngineConfig(max_batch_size=None)
    assert started.settings == Settings(models=("haast-tiny",))
    assert started.listening == Listening("0.0.0.0", 8000, 30)
    lines = outcome.err.splitlines()
    assert len(lines) == 1 and outcome.out == ""
    assert re.fullmatch(
        r"haast: ready at http://0\.0\.0\.0:8000, haast-tiny, 1280 KV tokens, [\d.]+ s", lines[0]
    )


def test_flags_and_their_aliases(serve):
    config = serve("org/model", "--max-num-seqs", 4, "--max-model-len", 99)[0].client.config
    assert str(config.model_path) == "org/model"
    assert (config.max_batch_size, config.max_length) == (4, 99)
    config = serve("--model", "m", "--max-num-batched-tokens", 512)[0].client.config
    assert str(config.model_path) == "m" and config.max_batch_input_tokens == 512
    arguments = ("--no-enable-prefix-caching", "--block-size", 64, "--max-queue-size", 5)
    config = serve("m", "--model-path", "m", *arguments, "--deterministic")[0].client.config
    assert not config.enable_prefix_caching and config.deterministic
    assert (config.kv_cache_page_size, config.max_queue_size) == (64, 5)
    assert serve("--gpu-memory-utilization", 0.5)[0].client.config.device_memory_utilization == 0.5


def test_server_flags(serve):
    names = ("--served-model-name", "a", "--served-model-name", "b", "--api-key", "k")
    other = ("--allowed-origins", "http://x", "--conversation-date", "2026-01-02")
    other += ("--reasoning-field", "both", "--response-store-mib", 0)
    started, _ = serve(*names, *other, "--host", "::1", "--port", 9)
    assert started.settings == Settings(
        models=("a", "b"),
        api_keys=("k",),
        allowed_origins=("http://x",),
        conversation_date="2026-01-02",
        mirrors_reasoning=True,
        response_store_mib=0,
    )
    assert started.listening == Listening("::1", 9, 30)
    assert serve("org/model")[0].settings.models == ("org/model",)


PARSED = "harmony is always parsed"


@pytest.mark.parametrize(
    "flag, why",
    [
        (("--reasoning-parser", "x"), PARSED),
        (("--tool-call-parser", "x"), PARSED),
        (("--enable-auto-tool-choice",), PARSED),
        (("--enable-structured-output",), "structured output is always on"),
    ],
    ids=str,
)
def test_flags_of_others_are_ignored_with_a_line(serve, flag, why, caplog):
    with caplog.at_level("INFO", logger="haast"):
        serve(*flag)
    assert [r.getMessage() for r in caplog.records] == [f"{flag[0]} is ignored: {why}"]


def test_the_command_line_wins_over_variables_and_these_over_the_file(serve, tmp_path, monkeypatch):
    file = tmp_path / "serve.yaml"
    file.write_text("port: 1\nmax-model-len: 11\nmax_batch_size: 2\nserved-model-name: [a, b]\n")
    started, _ = serve("--config-file", file)
    assert started.listening.port == 1 and started.settings.models == ("a", "b")
    assert (started.client.config.max_length, started.client.config.max_batch_size) == (11, 2)
    monkeypatch.setenv("HAAST_PORT", "2")
    monkeypatch.setenv("HAAST_API_KEY", "one two")
    started, _ = serve("--config-file", file)
    assert started.listening.port == 2 and started.settings.api_keys == ("one", "two")
    started, _ = serve("--config-file", file, "--port", 3, "--max-length", 12, "--api-key", "c")
    assert started.listening.port == 3 and started.settings.api_keys == ("c",)
    assert started.client.config.max_length == 12


def test_guesses_in_a_file_and_in_a_variable(serve, tmp_path, monkeypatch):
    """As a mapping, or as the JSON that the option takes."""
    file = tmp_path / "serve.yaml"
    file.write_text("speculative-config: {method: ngram, prompt_lookup_max: 4}\n")
    wish = SpeculativeConfig("ngram", prompt_lookup_max=4)
    assert serve("--config-file", file)[0].client.config.speculative_config == wish
    monkeypatch.setenv("HAAST_SPECULATIVE_CONFIG", '{"method": "ngram"}')
    started, _ = serve("--config-file", file)
    assert started.client.config.speculative_config == SpeculativeConfig("ngram")


@pytest.mark.parametrize(
    "text, message",
    [
        ("prot: 1", "no option 'prot'"),
        ("- a", "must hold `name: value` lines; got list"),
        ("a: [", "is no YAML"),
        ("config-file: x", "no option 'config-file'"),
        ("port: many", "'many' is not a valid integer"),
        ("max-length: 5\nmax-model-len: 6", "max-length is 5 and max-model-len is 6"),
    ],
)
def test_a_file_that_is_refused(refused, tmp_path, text, message):
    file = tmp_path / "serve.yaml"
    file.write_text(text)
    assert message in refused("serve", "--config-file", file)


def test_refusals(refused, tmp_path):
    assert "give one" in refused("serve", "a", "--model-path", "b")
    assert "an --api-key is empty" in refused("serve", "--api-key", "a", "--api-key", "")
    assert "cannot read" in refused("serve", "--config-file", tmp_path / "none.yaml")
    assert "max_queue_size must be at least 1" in refused("serve", "--max-queue-size", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused("serve", "--host", "127.0.0.1", "--port", port)
    assert message.startswith(f"cannot listen on 127.0.0.1:{port}: ")


def test_a_model_that_is_not_there(refused, tmp_path):
    message = refused("serve", tmp_path / "nothing", "--host", "127.0.0.1", "--port", 0)
    assert "nothing" in message


def test_sigterm_lets_open_requests_end_and_exits_with_0():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "haast", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--devices", "cpu", "--max-length", "640"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    received, begun = [], threading.Event()

    def ask():
        body = {"messages": [{"role": "user", "content": "What is a bald eagle?"}]}
        body |= {"temperature": 0, "max_tokens": 80, "stream": True}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, timeout=60) as response:
            for text in response.iter_text():
                received.append(text)
                begun.set()

    asking = threading.Thread(target=ask)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert "haast: ready at" in process.stderr.readline()
        asking.start()
        assert begun.wait(60) and "[DONE]" not in "".join(received)
        process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert "".join(received).endswith("data: [DONE]\n\n")
        assert process.wait(30) == 0
        assert process.stderr.read().endswith(" INFO shutting down: 1 requests have 30 s to end\n")
