"""The document: written, read back, and refused in one line."""

import json
from pathlib import Path

import pytest

from haast.baseline.document import path_of, read, write
from haast.baseline.errors import BaselineError
from haast.baseline.kernels import changed_kernels, kernels_of
from haast.baseline.metrics import values_of
from tests.baseline.made_up import MACHINE, baseline, kernels

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return path_of("made")


def test_it_is_read_back(path):
    made = baseline(dirty=True)
    write(made, path)
    assert read(path) == made
    values = values_of(read(path).metrics)
    assert {name: len(found) for name, found in values.items()} == {
        "decode_b1": 3,
        "decode_b64": 3,
        "prefill_1024": 3,
    }
    assert values["decode_b1"][1] == pytest.approx(60.24)


def test_it_has_a_line_a_result_and_says_where_it_is_from(path):
    write(baseline(), path)
    lines = path.read_text().splitlines()
    assert sum(line.startswith('   {"bench": "decode"') for line in lines) == 3
    document = json.loads(path.read_text())
    assert document["commit"] == "abc1234" and document["dirty"] is False
    assert document["machine"]["gpu"] == "NVIDIA Test" and document["machine"]["driver"] == "580.1"
    assert document["cases"][1]["command"] == ["bench", "decode", "--batch", "1,64"]


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda d: d.pop("machine"), "not a baseline .'machine'"),
        (lambda d: d.update(format=2), "its format is 2, known is 1"),
        (lambda d: d.update(kind="tpu"), "kind 'tpu'"),
        (lambda d: d["machine"].pop("cpu"), "cpu"),
        (lambda d: d["cases"][1]["results"][0].pop("rows"), "not what it prints"),
        (lambda d: d["cases"].pop(0), "no coherence or no speeds"),
        (lambda d: d["cases"].__delitem__(slice(1, None)), "no coherence or no speeds"),
        (lambda d: d["cases"][0].update(command=["serve"]), "serve.* is none of"),
        (lambda d: d.update(cases=5), "not a baseline"),
    ],
)
def test_a_damaged_one_is_named(path, change, text):
    write(baseline(), path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(BaselineError, match=text) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: not a baseline") and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_what_is_no_document(path, text):
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(BaselineError, match="not a baseline"):
        read(path)


def test_one_that_is_not_there(path):
    write(baseline(), path)
    with pytest.raises(BaselineError, match=r"no baseline .*gone.json; in .* there is made$"):
        read(path_of("gone"))


def test_names():
    assert str(path_of("h100")) == "bench/baselines/h100.json"
    assert str(path_of("../elsewhere/x.json")) == "../elsewhere/x.json"
    for name in ("", "..", "a/b", ".hidden", "../h100"):
        with pytest.raises(BaselineError, match="is neither a name nor a file"):
            path_of(name)


def test_figures_of_another_machine_are_not_compared():
    other = MACHINE.__class__(**vars(MACHINE) | {"gpu": "NVIDIA Other"})
    assert baseline().why_not_here(MACHINE) is None
    assert "is of NVIDIA Test, this is NVIDIA Other" in baseline().why_not_here(other)
    assert baseline(kind="cpu").why_not_here(other) is None
    none = MACHINE.__class__(**vars(MACHINE) | {"gpu": None, "cpu": "Intel"})
    assert "this is a machine without a GPU" in baseline().why_not_here(none)
    assert "is of AMD Test, this is Intel" in baseline(kind="cpu").why_not_here(none)


def test_kernels():
    before, now = kernels_of(kernels()), kernels_of(kernels("moe_wgmma"))
    assert before == {"moe_up at 64": "moe_gather -> moe_mma"} and kernels_of(None) == {}
    assert changed_kernels(before, before) == changed_kernels({}, now) == []
    assert changed_kernels(before, now) == [
        "moe_up at 64: moe_gather -> moe_mma, now moe_gather -> moe_wgmma"
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "bench/baselines").glob("*.json")))
def test_baselines_of_this_project(path):
    """Of a commit as it is, coherent, whole, and without a path of the machine."""
    saved = read(path)
    assert saved.name == path.stem and not saved.dirty and saved.commit
    assert saved.result("coherence")["passed"] is True
    assert len({metric.name for metric in saved.metrics}) >= 2
    assert str(ROOT) not in path.read_text() and "/tmp" not in path.read_text()


def test_there_is_one_of_the_cpu():
    assert read(ROOT / "bench/baselines/cpu.json").kind == "cpu"
