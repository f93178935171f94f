"""`haast profile`: from the op's name to the verdicts, with a stand-in for Nsight Compute."""

import shutil
import sys

import pytest
import torch

from haast.bench.cases import read_config
from haast.bench.ncu import find_ncu
from haast.bench.tables import find_op, launched
from haast.errors import HaastError
from tests.bench.ncu_report import raw_page

FAKE = """#!{python}
import sys
if "--import" in sys.argv:
    print(open({page!r}).read(), end="")
else:
    open({log!r}, "w").write("\\n".join(sys.argv))
    print('==PROF== Connected', '{{"nbytes": 35400000, "flop": 283200000}}', sep="\\n")
"""


@pytest.fixture
def ncu(tmp_path, monkeypatch):
    """A program named ncu on PATH that writes its arguments into a file; the file's path."""
    page, log, program = tmp_path / "page.csv", tmp_path / "log", tmp_path / "bin" / "ncu"
    page.write_text(raw_page())
    program.parent.mkdir()
    program.write_text(FAKE.format(python=sys.executable, page=str(page), log=str(log)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr("haast.bench.machine.hopper", lambda: torch.device("cuda", 0))
    return log


def test_the_kernels_that_the_table_names_are_profiled_and_judged(haast, ncu, tmp_path):
    report = tmp_path / "x.ncu-rep"
    outcome = haast("profile", "moe_down", "--tokens", 4, "--out", report)
    assert outcome.code == 0 and outcome.err == ""
    symbols = launched(find_op("moe_down"), read_config("gpt-oss-20b"), 4)
    arguments = ncu.read_text().splitlines()
    names = "|".join(dict.fromkeys(symbols))
    assert arguments[arguments.index("--kernel-name") + 1] == f"regex:^({names})$"
    assert arguments[-5:] == ["moe_down", "--tokens", "4", "--model", "gpt-oss-20b"]
    lines = outcome.out.splitlines()
    assert lines[0] == "moe_down, 4 tokens of gpt-oss-20b: moe_up_mma_n8"
    assert "  ALU pipe                72.50 %                   LOOK: above 70" in lines
    assert "  DRAM read / counted     35.60 / 35.40 MB = 1.006  ok" in lines
    assert lines[-1] == f"report: {report}"


def test_without_ncu(refused, monkeypatch):
    monkeypatch.setattr("haast.bench.machine.hopper", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    text = refused("profile", "moe_up", "--tokens", 4)
    assert text == "ncu (Nsight Compute) is not on PATH; it comes with the CUDA toolkit"
    with pytest.raises(HaastError):
        find_ncu()


def test_without_a_hopper_gpu(refused, monkeypatch):
    monkeypatch.setattr("torch.version.cuda", None)
    text = refused("profile", "moe_up", "--tokens", 4)
    assert text.startswith("this needs an NVIDIA Hopper GPU") and "is a CPU build" in text


@pytest.mark.parametrize(
    "words, text",
    [
        (
            ("moe_pu", "--tokens", "4"),
            "no op 'moe_pu' with kernels; there are rms_norm, add_rms_norm",
        ),
        (("linear", "--tokens", "512"), "no kernel of ours runs linear at 512 tokens"),
        (("moe_up",), "Missing option '--tokens'"),
        (("moe_up", "--tokens", "0"), "0 is not in the range"),
        (("moe_up", "--tokens", "4", "--model", "x"), "x: neither gpt-oss-20b nor"),
    ],
)
def test_bad_values(refused, words, text):
    assert text in refused("profile", *words)
