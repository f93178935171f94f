"""`haast baseline` as a program: what it prints, writes and ends with."""

import json

import pytest

from haast.__main__ import main
from haast.baseline import kernels, known_good, machine, running
from haast.baseline.document import path_of, read, write
from haast.errors import HaastError
from tests.baseline.made_up import MACHINE, Runs, baseline, coherence, decode
from tests.baseline.made_up import kernels as made_kernels

CPU = MACHINE.__class__(**vars(MACHINE) | {"gpu": None, "driver": None})
SLOW = decode(b1=54.0, b64=70.0)


@pytest.fixture
def program(tmp_path, monkeypatch, capsys):
    """program(runs, *words) -> exit code, output, error output; in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kernels, "build_kernels", lambda: None)
    monkeypatch.setattr(machine, "_first_gpu", lambda: ("NVIDIA Test", "580.1", "9.0"))
    cases = tuple(measured.case for measured in baseline().cases)
    monkeypatch.setattr(known_good, "KNOWN_GOOD", {"gpu": cases, "cpu": cases})
    write(baseline(), path_of("made"))

    def run(runs, *words):
        monkeypatch.setattr(running, "run_case", runs)
        with pytest.raises(SystemExit) as ended:
            main([*words])
        return ended.value.code, *capsys.readouterr()

    return run


def rows(out):
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]


def test_good(program):
    code, out, err = program(Runs(), "baseline", "check", "made")
    assert code == 0 and out.endswith("coherence: pass\ngood\n")
    assert ["decode_b64", "70 %", "70 %", "+0.0 %", "3.0 %", "same", "560 tokens/s"] in rows(out)
    assert err.splitlines()[0] == "1/1: haast coherence --json" and len(err.splitlines()) == 8


def test_worse(program):
    code, out, _ = program(Runs(decode=SLOW), "baseline", "check", "made")
    assert code == 1 and out.endswith("coherence: pass\nWORSE\n")
    assert ["decode_b1", "60 %", "54 %", "-10.0 %", "3.0 %", "worse", "432 tokens/s"] in rows(out)


def test_the_tolerance_is_a_percentage(program):
    words = ("baseline", "check", "made", "--tolerance")
    assert program(Runs(decode=SLOW), *words, "11")[0] == 0
    assert program(Runs(decode=decode(b1=59.2, b64=70.0)), *words, "1")[0] == 1


def test_the_repeats_are_runs(program):
    runs = Runs()
    assert program(runs, "baseline", "check", "made", "--repeats", "5")[0] == 0
    assert runs.ran.count("decode") == 5


def test_incoherent(program):
    code, out, _ = program(Runs(coherence=coherence(False)), "baseline", "check", "made")
    assert code == 1 and "\ncoherence: FAIL\n  exact answers is 0.5, must be >= 0.9\n" in out
    assert out.endswith("\nNOT coherent\n")


def test_missing(program):
    code, out, _ = program(Runs(prefill="ended with code 2: no"), "baseline", "check", "made")
    assert code == 125 and "not measured: prefill: ended with code 2: no\ncannot be told" in out
    assert ["prefill_1024", "50 %", "-", "-", "-", "missing", "-"] in rows(out)


@pytest.mark.parametrize(
    "words, text",
    [
        (("gone",), "there is no baseline bench/baselines/gone.json; in bench/baselines there is"),
        (("a/b",), "'a/b' is neither a name nor"),
        ((), "Missing argument 'NAME'"),
        (("made", "--gone"), "No such option"),
        (("made", "--repeats", "1"), "1 is not in the range x>=2"),
    ],
)
def test_a_mistake_is_no_bad_commit(program, words, text):
    """1 and 2 would make `git bisect run` blame it."""
    code, out, err = program(Runs(), "baseline", "check", *words)
    assert (code, out) == (125, "") and err.count("\n") == 1
    assert err.startswith("haast: error: ") and text in err


def test_a_bug_of_ours_is_no_bad_commit(program):
    code, _, err = program(Runs(decode=ZeroDivisionError("x")), "baseline", "check", "made")
    assert code == 125 and "Traceback" in err and "ZeroDivisionError('x')" in err


def test_help_is_no_error(program):
    code, out, _ = program(Runs(), "baseline", "check", "--help")
    assert not code and "git bisect run" in out


def test_what_else_has_changed_is_said(program, monkeypatch):
    write(baseline(machine=MACHINE.__class__(**vars(MACHINE) | {"driver": "570.1"})), path_of("x"))
    code, out, _ = program(Runs(kernels=made_kernels("moe_wgmma")), "baseline", "check", "x")
    assert code == 0 and "\ndriver was 570.1, is 580.1\n" in out
    assert "\nmoe_up at 64: moe_gather -> moe_mma, now moe_gather -> moe_wgmma\n" in out


def test_another_machine(program, monkeypatch):
    monkeypatch.setattr(machine, "_first_gpu", lambda: ("NVIDIA Other", "580.1", "9.0"))
    runs = Runs()
    code, _, err = program(runs, "baseline", "check", "made")
    assert code == 125 and "is of NVIDIA Test, this is NVIDIA Other" in err and runs.ran == []


def test_kernels_that_do_not_compile_or_cannot(program, monkeypatch):
    monkeypatch.setattr(kernels, "build_kernels", lambda: "nvcc needs g++")
    code, _, err = program(Runs(), "baseline", "check", "made")
    assert code == 0 and err.startswith("kernels are taken as they are: nvcc needs g++\n")

    def broken():
        raise HaastError("linear.cu did not compile")

    monkeypatch.setattr(kernels, "build_kernels", broken)
    code, _, err = program(Runs(), "baseline", "check", "made")
    assert (code, err) == (125, "haast: error: linear.cu did not compile\n")


def test_save(program):
    code, out, _ = program(Runs(), "baseline", "save", "new")
    assert code == 0 and out.endswith("coherence: pass\ngood\nsaved bench/baselines/new.json\n")
    assert ["decode_b1", "60 %", "0.0 %", "480 tokens/s"] in rows(out)
    saved = read(path_of("new"))
    assert (saved.name, saved.kind, saved.machine.gpu) == ("new", "gpu", "NVIDIA Test")
    assert [len(measured.results) for measured in saved.cases] == [1, 3, 3, 1]
    assert saved.commit is None or not saved.commit.endswith("+")
    assert program(Runs(), "baseline", "check", "new")[0] == 0
    assert program(Runs(), "baseline", "save", "c", "--devices", "cpu")[0] == 0
    assert (read(path_of("c")).kind, read(path_of("c")).machine.gpu) == ("cpu", None)


@pytest.mark.parametrize(
    "changes, code", [({"coherence": coherence(False)}, 1), ({"decode": "ended with code 2"}, 125)]
)
def test_nothing_is_saved_of_what_is_not_good(program, tmp_path, changes, code):
    before = path_of("made").read_bytes()
    assert program(Runs(**changes), "baseline", "save", "made")[0] == code
    assert path_of("made").read_bytes() == before
    assert program(Runs(**changes), "baseline", "save", "new")[0] == code
    assert not path_of("new").exists()


def test_a_file_elsewhere(program, tmp_path):
    made = tmp_path / "elsewhere" / "x.json"
    assert program(Runs(), "baseline", "save", str(made))[0] == 0
    assert json.loads(made.read_text())["name"] == "x"
    assert program(Runs(decode=SLOW), "baseline", "check", str(made))[0] == 1
