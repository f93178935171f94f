"""`haast --help`, `haast make-checkpoint`, and models without weights."""

import json
import shutil
import subprocess
import sys

import pytest

from haast import __version__
from haast.model.checkpoint import open_checkpoint
from haast.model.locate import demo_folder

COMMANDS = ["baseline", "bench", "coherence", "doctor", "generate", "journal", "make-checkpoint"]
COMMANDS += ["ops", "profile"]
FEW = ("--prompt", "Hello", "--max-new-tokens", 4, "--ignore-eos", "--json", "--max-length", 256)


@pytest.fixture
def small_config(tmp_path):
    """Shapes of haast-tiny, narrower, for the published vocabulary."""
    fields = json.loads((demo_folder() / "config.json").read_text())
    fields |= {"hidden_size": 64, "intermediate_size": 32, "vocab_size": 201088}
    path = tmp_path / "small" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(fields))
    return path


def test_help_and_version(haast):
    top = haast("--help")
    assert top.code == 0 and top.err == ""
    assert [name for name in COMMANDS if name not in top.out] == []
    assert haast("-h").out == top.out
    assert haast("--version").out == f"haast, version {__version__}\n"
    nothing = haast()
    assert nothing.code == 2 and nothing.out == "" and "Usage: haast" in nothing.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands(haast, command):
    outcome = haast(command, "--help")
    assert outcome.code == 0 and outcome.out.startswith(f"Usage: haast {command} [OPTIONS]")


def test_help_does_not_wait_for_torch():
    script = (
        "import sys\n"
        "from haast.__main__ import main\n"
        f"for command in {COMMANDS}:\n"
        "    try:\n"
        "        main([command, '--help'])\n"
        "    except SystemExit as ended:\n"
        "        assert not ended.code, ended.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Usage: haast") == len(COMMANDS)


def test_make_checkpoint_and_generate_from_it(haast, small_config, tmp_path):
    out = tmp_path / "random"
    sizes = ("--layers", 2, "--experts", 5)
    made = haast("make-checkpoint", "--like", small_config, "--out", out, *sizes)
    assert (made.code, made.out, made.err) == (0, "", f"wrote {out}\n")
    config = open_checkpoint(out).config
    assert (config.num_layers, config.num_experts, config.hidden_size) == (2, 5, 64)
    answer = haast("generate", "--model-path", out, *FEW)
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    assert len(document["token_ids"]) == 4 and document["finish_reason"] == "length"
    assert document["plan"]["model_path"] == str(out)


def test_make_checkpoint_refuses(refused, small_config, tmp_path):
    words = ("make-checkpoint", "--like", small_config)
    assert "Missing option '--out'" in refused(*words)
    assert "nothing was written" in refused(*words, "--out", small_config.parent)
    text = refused("make-checkpoint", "--like", "gpt-oss-7b", "--out", tmp_path / "out")
    assert text.startswith("gpt-oss-7b: neither gpt-oss-20b nor gpt-oss-120b nor a config.json")
    text = refused(*words, "--out", tmp_path / "out", "--devices", "gpu:x")
    assert text == "devices 'gpu:x' is not one of cpu, gpu, gpu:N"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["mxfp4", "bfloat16"])
def test_dummy_weights_need_a_config_only(haast, tmp_path, encoding):
    folder = tmp_path / "no-weights"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(demo_folder() / name, folder)
    words = ("--model-path", folder, "--load-format", "dummy", "--quantization-encoding", encoding)
    outcome = haast("generate", *words, *FEW)
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert len(document["token_ids"]) == 4
    assert document["plan"]["layout"] == "dummy" and document["plan"]["files"] == []
    assert document["plan"]["encoding"] == encoding


def test_dummy_weights_refuse_what_has_no_config(refused, tmp_path):
    text = refused("generate", *FEW, "--model-path", tmp_path, "--load-format", "dummy")
    assert str(tmp_path / "config.json") in text


def test_a_vocabulary_that_does_not_fit_the_weights(refused, small_config):
    fields = json.loads(small_config.read_text()) | {"vocab_size": 4096}
    small_config.write_text(json.dumps(fields))
    words = ("--model-path", small_config.parent, "--load-format", "dummy")
    text = refused("generate", *FEW, *words)
    assert text == "token id 200006 is not in the vocabulary of 4096"
