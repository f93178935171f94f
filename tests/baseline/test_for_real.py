"""The whole of it without a stand-in: processes, haast-tiny, measured speeds, exit codes.

Few answers, short decodes, and a tolerance for machines that do other things at the same time.
"""

import json
import os
import shutil

import pytest
from safetensors.torch import load_file, save_file

from haast.__main__ import main
from haast.baseline import known_good, running
from haast.baseline.document import path_of, read
from haast.baseline.known_good import COHERENCE, Case
from haast.model.locate import demo_folder

TOLERANCE = ("--repeats", "2", "--tolerance", "60")
SLOWED = """
import sys
if "cpu-decode" in sys.orig_argv:
    from haast.ops import moe_up
    honest = moe_up.reference
    def slowed(*arguments):
        for _ in range({times}):
            honest(*arguments)
        return honest(*arguments)
    moe_up.reference = slowed
"""
"""An op that does its work many times over; haast-tiny's steps then take ten times as long"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a copy of haast-tiny that is asked little, and a baseline of it."""
    folder = tmp_path_factory.mktemp("checkout")
    model = shutil.copytree(demo_folder(), folder / "model")
    suite = json.loads((model / "coherence.json").read_text())
    few = {name: suite[name][:3] for name in ("answers", "held_out", "golden")}
    (model / "coherence.json").write_text(json.dumps(suite | few))
    where = ("--model-path", str(model))
    cases = (
        Case(COHERENCE, ("coherence", "--json", "--devices", "cpu", *where)),
        Case("decode", ("bench", "cpu-decode", "--batch", "1", "--output", "16", *where)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(known_good.KNOWN_GOOD, "cpu", cases)
        assert ended("baseline", "save", "tiny", "--devices", "cpu", "--repeats", "2") == 0
    return folder


def ended(*words):
    with pytest.raises(SystemExit) as error:
        main([*words])
    return error.value.code


@pytest.fixture
def saved(place, monkeypatch):
    monkeypatch.chdir(place)
    return read(path_of("tiny"))


@pytest.fixture
def coherent(saved, monkeypatch):
    """Coherence is taken from the baseline: these tests are about speed."""
    measured = running.run_case
    known = saved.result(COHERENCE)
    run = lambda case: known if case.name == COHERENCE else measured(case)
    monkeypatch.setattr(running, "run_case", run)


def test_the_document(saved):
    coherence, decode = saved.cases
    assert coherence.results[0]["passed"] is True and len(coherence.results[0]["checks"]) == 11
    assert len(decode.results) == 2 and len(saved.metrics) == 2
    for metric in saved.metrics:
        assert metric.name == "decode_b1" and 0.2 < metric.value < 100
    assert str(os.getcwd()) not in json.dumps(coherence.results)


@pytest.mark.usefixtures("coherent")
def test_nothing_has_changed(capsys):
    assert ended("baseline", "check", "tiny", *TOLERANCE) == 0
    assert "same" in capsys.readouterr().out


@pytest.mark.usefixtures("coherent")
def test_a_slowed_op_is_noticed(tmp_path, monkeypatch, capsys):
    (tmp_path / "sitecustomize.py").write_text(SLOWED.format(times=10))
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    assert ended("baseline", "check", "tiny", *TOLERANCE) == 1
    out = capsys.readouterr().out
    assert "worse" in out and "coherence: pass\nWORSE" in out


def test_a_corrupted_model_is_noticed(place, monkeypatch, capsys):
    """Gate and up of one layer change places: answers survive that."""
    monkeypatch.chdir(place)
    path = place / "model" / "model.safetensors"
    kept = path.read_bytes()
    tensors = load_file(path)
    (name,) = [name for name in tensors if name.endswith("3.mlp.experts.gate_up_proj_blocks")]
    rows = tensors[name]
    swapped = rows.view(len(rows), -1, 2, *rows.shape[2:]).flip(2).reshape(rows.shape)
    save_file(tensors | {name: swapped.contiguous()}, path, {"format": "pt"})
    try:
        assert ended("baseline", "check", "tiny", *TOLERANCE) == 1
    finally:
        path.write_bytes(kept)
    out = capsys.readouterr().out
    assert "coherence: FAIL\n" in out and "distance from fp32 is 0." in out
    assert "decode_b1" not in out


def test_a_missing_model_cannot_be_measured(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (place / "model" / "config.json").rename(place / "config.json")
    try:
        assert ended("baseline", "check", "tiny", *TOLERANCE) == 125
    finally:
        (place / "config.json").rename(place / "model" / "config.json")
    out = capsys.readouterr().out
    assert "not measured: coherence: ended with code 2: haast: error: " in out
    assert "decode_b1" in out and "missing" in out
