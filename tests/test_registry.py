"""Architectures of one's own, from the example that the documentation shows."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from haast import LLM, HaastError, SamplingParams
from haast.__main__ import main
from haast.model.gpt_oss import GptOss
from haast.model.locate import demo_folder
from haast.model.registry import ArchitectureError, find_architecture

EXAMPLE = Path(__file__).parent.parent / "examples" / "custom_architecture.py"
NAME = "GptOssSoftcapForCausalLM"
HEAD = "from haast.model.gpt_oss import GptOss\nfrom haast.model.registry import Architecture\n"


@pytest.fixture(scope="module")
def softcap_model(tmp_path_factory):
    """haast-tiny, claiming to be what only the example knows."""
    torch.set_num_threads(1)
    folder = shutil.copytree(demo_folder(), tmp_path_factory.mktemp("softcap") / "model")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": [NAME]}))
    return folder


@pytest.fixture
def module(tmp_path):
    """Writes a module and gives its path."""

    def write(source: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        return path

    return write


def test_the_example_runs_from_the_command_line(softcap_model, capsys):
    words = ["--model-path", str(softcap_model), "--custom-architectures", str(EXAMPLE)]
    ask = ["--prompt", "Hello", "--temperature", "0", "--max-new-tokens", "40", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["generate", *words, *ask])
    document = json.loads(capsys.readouterr().out)
    assert not ended.value.code
    assert document["plan"]["architecture"] == NAME
    assert document["text"].startswith("Hello")


def test_the_example_caps_every_logit(softcap_model):
    capped = LLM(softcap_model, custom_architectures=(str(EXAMPLE),), max_length=128)
    plain = LLM(max_length=128)
    token_ids = plain.tokenizer.encode("What is a bald eagle?")
    logits = plain.score(token_ids)
    cap = type(capped._loaded.model).logits.__globals__["CAP"]
    assert float(logits.abs().max()) > cap / 2, "too small for a cap to show"
    expected = (cap * (logits / cap).tanh()).bfloat16().float()
    torch.testing.assert_close(capped.score(token_ids), expected)
    tokens = [
        llm.generate([token_ids], SamplingParams(temperature=0, max_new_tokens=4))[0].token_ids
        for llm in (capped, plain)
    ]
    assert tokens[0] == tokens[1], "tanh keeps the order"


def test_without_the_flag_it_is_not_known(softcap_model):
    with pytest.raises(HaastError) as error:
        LLM(softcap_model)
    assert str(error.value) == (
        f"architecture '{NAME}' is not known; known are GptOssForCausalLM; "
        "--custom-architectures adds others"
    )


def test_what_is_known_includes_the_custom_ones():
    with pytest.raises(ArchitectureError, match=f"known are GptOssForCausalLM, {NAME};"):
        find_architecture("Other", [str(EXAMPLE)])


def test_a_custom_architecture_takes_precedence(module):
    assert find_architecture("GptOssForCausalLM").model is GptOss
    source = HEAD + (
        "class Mine(GptOss): pass\nARCHITECTURES = (Architecture('GptOssForCausalLM', Mine),)\n"
    )
    path = str(module(source))
    assert find_architecture("GptOssForCausalLM", [path]).model.__name__ == "Mine"
    again = module(source.replace("Mine", "Later"), "later.py")
    assert find_architecture("GptOssForCausalLM", [path, str(again)]).model.__name__ == "Later"
    assert find_architecture("GptOssForCausalLM").model is GptOss


@pytest.mark.parametrize("spelling", ["{}/custom_architecture.py", "{}:custom_architecture"])
def test_spellings_of_a_module(spelling):
    found = find_architecture(NAME, [spelling.format(EXAMPLE.parent)])
    assert found.name == NAME and issubclass(found.model, GptOss)


def test_packages_are_modules_too(module):
    source = HEAD + "ARCHITECTURES = [Architecture('A', GptOss)]\n"
    package = module(source, "package/__init__.py").parent
    module(source.replace("'A'", "'B'"), "package/inner.py")
    assert find_architecture("A", [str(package)]).name == "A"
    assert find_architecture("A", [f"{package.parent}:package"]).name == "A"
    assert find_architecture("B", [f"{package.parent}:package.inner"]).name == "B"


@pytest.mark.parametrize(
    "source, words",
    [
        ("", "must export ARCHITECTURES, a list of Architecture"),
        ("ARCHITECTURES = []", "must export ARCHITECTURES, a list of Architecture"),
        ("ARCHITECTURES = 'GptOss'", "must export ARCHITECTURES, a list of Architecture"),
        ("ARCHITECTURES = ['GptOss']", "ARCHITECTURES holds 'GptOss', not an Architecture"),
        ("ARCHITECTURES = [int]", "ARCHITECTURES holds <class 'int'>, not an Architecture"),
    ],
)
def test_wrong_exports(module, source, words):
    path = module(source)
    with pytest.raises(ArchitectureError) as error:
        find_architecture("GptOssForCausalLM", [str(path)])
    assert str(error.value) == f"{path}: {words}"


@pytest.mark.parametrize("name", ["none.py", "none", "folder:none", "a/b:c.d"])
def test_a_module_that_is_not_there(tmp_path, name):
    path = f"{tmp_path}/{name}"
    with pytest.raises(ArchitectureError) as error:
        find_architecture("GptOssForCausalLM", [path])
    assert str(error.value) == f"custom architecture {path}: no such Python module"
