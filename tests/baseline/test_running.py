"""Commands in processes of their own: their result, or why there is none."""

import os
import sys

import pytest

from haast.baseline import machine, running
from haast.baseline.errors import UnmeasuredError
from haast.baseline.kernels import kernels_of
from haast.baseline.known_good import COHERENCE, Case
from haast.baseline.machine import Machine, has_hopper, this_machine
from haast.baseline.running import last_json, run_case

SMI = "NVIDIA H100 80GB HBM3, 580.159.04, 9.0\nNVIDIA A10, 580.159.04, 8.6"


def test_a_command_of_ours_is_run():
    result = run_case(Case("kernels", ("ops", "--tokens", "1", "--json")))
    assert result["model"] == "gpt-oss-20b"
    assert kernels_of(result)["rms_norm at 1"] == "rms_norm_bf16"


@pytest.mark.parametrize(
    "command, text",
    [
        ("bench decode --gone", "ended with code 2: .*No such option"),
        ("bench grouped --P 0", "ended with code 2: haast: error: .*'--P'"),
        ("ops --help", "ended with code 0: without a word, and without a result"),
    ],
)
def test_a_command_without_a_result(command, text):
    with pytest.raises(UnmeasuredError, match=text) as error:
        run_case(Case("x", tuple(command.split())))
    assert "\n" not in str(error.value)


@pytest.fixture
def program(monkeypatch, tmp_path):
    """program(name, script): the case's process runs that script instead."""

    def run(name, script):
        fake = tmp_path / "python"
        fake.write_text(f"#!{python} -S\n{script}")
        fake.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(fake))
        return run_case(Case(name, ("bench",)))

    python = sys.executable
    return run


FAILED = 'print(\'{"passed": false, "checks": [], "wrong": [1]}\')\nraise SystemExit(1)'


def test_incoherence_is_a_result_and_a_failed_bench_is_none(program):
    assert program(COHERENCE, FAILED) == {
        "passed": False,
        "checks": [],
        "skipped": None,
        "warning": None,
    }
    with pytest.raises(UnmeasuredError, match="ended with code 1"):
        program("decode", FAILED)
    with pytest.raises(UnmeasuredError, match="ended with code 1: ValueError: x"):
        program(COHERENCE, "raise ValueError('x')")


def test_a_command_that_crashes_or_hangs(program, monkeypatch):
    with pytest.raises(UnmeasuredError, match="ended with signal 9: gone"):
        program(
            "x",
            "import os, sys\nsys.stderr.write('gone')\nsys.stderr.flush()\nos.kill(os.getpid(), 9)",
        )
    monkeypatch.setattr(running, "TIMEOUT_S", 0.5)
    with pytest.raises(UnmeasuredError, match="took longer than 0 s"):
        program("x", "import time\ntime.sleep(60)")


def test_the_same_code_is_measured(program, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    shown = program("x", "import json, os\nprint(json.dumps(dict(os.environ)))")
    assert shown["PYTHONPATH"].split(os.pathsep) == [str(running.PACKAGES), "/elsewhere"]
    assert (running.PACKAGES / "haast/baseline/running.py").samefile(running.__file__)
    assert shown["OMP_NUM_THREADS"] == "1"


def test_the_last_line_counts():
    assert last_json('table\n{"a": 1}\n{"a": 2}\n') == {"a": 2}
    assert last_json('{\n "a": 3\n}') == {"a": 3}
    assert last_json("") is last_json("{") is last_json("[1]") is last_json('{"a": 1}\nx') is None


def test_the_machine(monkeypatch):
    monkeypatch.setattr(machine, "program_output", lambda command: SMI)
    assert has_hopper()
    found = this_machine(with_gpu=True)
    assert (found.gpu, found.driver) == ("NVIDIA H100 80GB HBM3", "580.159.04")
    assert found.describe().startswith("NVIDIA H100 80GB HBM3, driver 580.159.04, torch 2.")
    assert found.cpu and found.cores >= 1 and found.python.startswith("3.")
    assert this_machine(with_gpu=False).gpu is None


@pytest.mark.parametrize("said", [None, "", "No devices were found", "NVIDIA A10, 580.1, 8.6"])
def test_a_machine_without_a_hopper(monkeypatch, said):
    monkeypatch.setattr(machine, "program_output", lambda command: said)
    assert not has_hopper()
    described = Machine("CPU", 2, None, None, "2.13", None, "3.11", None).describe()
    assert described == "CPU, 2 cores, torch 2.13"
