"""Without a stand-in: processes, haast-tiny, measured speeds, exit codes.

Few answers, short decodes, and a tolerance for machines that do other things at the same time.
"""

import json
import os
import shutil

import pytest
from safetensors.torch import load_file, save_file

from haast.__main__ import main
from haast.baseline import check, compare, known_good, running
from haast.baseline.document import Measured, path_of, read, write
from haast.baseline.known_good import COHERENCE, Case
from haast.baseline.machine import this_machine
from haast.model.locate import demo_folder
from tests.baseline.made_up import baseline, coherence, decode

TOLERANCE = ("--repeats", "2", "--tolerance", "60")
SLOWED = """
import sys
if "cpu-decode" in sys.orig_argv:
    from haast.ops import moe_up
    honest = moe_up.reference
    def slowed(*arguments):
        for _ in range(7):
            honest(*arguments)
        return honest(*arguments)
    moe_up.reference = slowed
"""
"""An op that does its work many times over: a step takes about five times as long"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a copy of haast-tiny that is asked little, and the set for it."""
    model = shutil.copytree(demo_folder(), tmp_path / "model")
    suite = json.loads((model / "coherence.json").read_text())
    few = {name: suite[name][:3] for name in ("answers", "held_out", "golden")}
    (model / "coherence.json").write_text(json.dumps(suite | few))
    where = ("--model-path", str(model))
    cases = (
        Case(COHERENCE, ("coherence", "--json", "--devices", "cpu", *where)),
        Case("decode", ("bench", "cpu-decode", "--batch", "1", "--output", "16", *where)),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(known_good.KNOWN_GOOD, "cpu", cases)
    # decodes are too short here to tell a quarter from noise
    for module in (check, compare):
        monkeypatch.setattr(module, "MOST_NOISE", 0.6)
    return tmp_path


@pytest.fixture
def known(place):
    """A baseline of this machine that nobody measured."""
    results = (coherence(), decode(b1=2.0))
    cases = zip(known_good.KNOWN_GOOD["cpu"], results, strict=True)
    measured = tuple(Measured(case, (result,)) for case, result in cases)
    write(baseline(kind="cpu", machine=this_machine(False), cases=measured), path_of("known"))
    return place / "model"


def ended(*words):
    with pytest.raises(SystemExit) as error:
        main([*words])
    return error.value.code


def test_a_slowed_op_is_noticed(place, monkeypatch, capsys):
    assert ended("baseline", "save", "tiny", "--devices", "cpu", "--repeats", "2") == 0
    saved = read(path_of("tiny"))
    assert saved.result(COHERENCE)["passed"] and len(saved.result(COHERENCE)["checks"]) == 11
    assert [metric.name for metric in saved.metrics] == ["decode_b1"] * 2
    assert all(0.01 < metric.value < 100 for metric in saved.metrics)
    assert str(place) not in json.dumps([saved.result(COHERENCE), saved.result("decode")])

    # from here on coherence is known: this is about speed
    measured = running.run_case
    answer = lambda case: saved.result(COHERENCE) if case.name == COHERENCE else measured(case)
    monkeypatch.setattr(running, "run_case", answer)
    assert ended("baseline", "check", "tiny", *TOLERANCE) == 0
    assert "same" in capsys.readouterr().out

    (place / "sitecustomize.py").write_text(SLOWED)
    paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    assert ended("baseline", "check", "tiny", *TOLERANCE) == 1
    out = capsys.readouterr().out
    assert "worse" in out and "coherence: pass\nWORSE" in out


def test_a_corrupted_model_is_noticed(known, capsys):
    """Gate and up of one layer change places: answers survive that."""
    path = known / "model.safetensors"
    tensors = load_file(path)
    (name,) = [name for name in tensors if name.endswith("3.mlp.experts.gate_up_proj_blocks")]
    rows = tensors[name]
    swapped = rows.view(len(rows), -1, 2, *rows.shape[2:]).flip(2).reshape(rows.shape)
    save_file(tensors | {name: swapped.contiguous()}, path, {"format": "pt"})
    assert ended("baseline", "check", "known", *TOLERANCE) == 1
    out = capsys.readouterr().out
    assert "coherence: FAIL\n" in out and "distance from fp32 is 0." in out
    assert "decode_b1" not in out


def test_a_missing_result_is_noticed(known, capsys):
    (known / "config.json").unlink()
    assert ended("baseline", "check", "known", *TOLERANCE) == 125
    out = capsys.readouterr().out
    assert "not measured: coherence: ended with code 2: haast: error: " in out
    assert "not measured: decode: ended with code 2: haast: error: " in out
    assert "decode_b1" in out and "missing" in out
