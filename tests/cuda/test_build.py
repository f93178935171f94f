"""The kernels' build: what is made again, what is refused, and what is said about it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from haast.cuda import build as builder
from haast.cuda.build import (
    HOW,
    CannotBuildError,
    Toolchain,
    build,
    find_toolchain,
    main,
    why_not_built,
)
from haast.errors import HaastError

SOURCE = 'extern "C" __global__ void f(int* x) { *x = VALUE; }\n'
NVCC = """#!/bin/sh
echo "ptxas info : $*"
case "$*" in *broken.cu*) echo 'broken.cu(1): error: no semicolon' >&2; exit 2;; esac
for last; do :; done
echo cubin > "$last"
"""
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="kernels are built on Linux")


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Two kernels and a header, and a compiler that only writes a file."""
    tools = tmp_path / "tools"
    (tools / "bin").mkdir(parents=True)
    (tools / "bin/nvcc").write_text(NVCC)
    (tools / "bin/nvcc").chmod(0o755)
    monkeypatch.setattr(builder, "find_toolchain", lambda: Toolchain(tools, (13, 5)))
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in ("a.cu", "b.cu", "both.cuh"):
        (folder / name).write_text(f"// {name}\n")
    return folder


def make(sources: Path, **options) -> list[str]:
    return build(sources, sources / "cubins", **options)


def test_what_has_changed_is_made_again(sources):
    cubins = sources / "cubins"
    assert make(sources) == ["a", "b"]
    assert make(sources) == []
    (sources / "a.cu").write_text("// changed\n")
    assert make(sources) == ["a"]
    (sources / "both.cuh").write_text("// changed\n")
    assert make(sources) == ["a", "b"]
    (cubins / "b.cubin").unlink()
    assert make(sources) == ["b"]
    assert make(sources, extra_flags=("-lineinfo",)) == ["a", "b"]
    os.utime(sources / "a.cu")
    assert make(sources, extra_flags=("-lineinfo",)) == []
    log = (cubins / "a.log").read_text()
    assert "ptxas info" in log and "code=sm_90a" in log and "-lineinfo" in log


def test_another_compiler_makes_all_again(sources, monkeypatch):
    make(sources)
    tools = builder.find_toolchain()
    monkeypatch.setattr(builder, "find_toolchain", lambda: Toolchain(tools.root, (13, 6)))
    assert make(sources) == ["a", "b"]


def test_a_cubin_without_source_goes(sources):
    make(sources)
    (sources / "b.cu").unlink()
    make(sources)
    assert sorted(path.name for path in (sources / "cubins").iterdir()) == ["a.cubin", "a.log"]


def test_an_error_comes_through(sources, capsys):
    (sources / "broken.cu").write_text("")
    with pytest.raises(HaastError, match=r"^broken\.cu did not compile"):
        make(sources)
    assert "broken.cu(1): error: no semicolon" in capsys.readouterr().err
    names = {path.name for path in (sources / "cubins").iterdir()}
    assert names == {"a.cubin", "a.log", "b.cubin", "b.log"}


def test_a_machine_that_cannot_build_says_why(sources, monkeypatch):
    def refuse():
        raise CannotBuildError("no g++")

    monkeypatch.setattr(builder, "SOURCES", sources)
    monkeypatch.setattr(builder, "CUBINS", sources / "cubins")
    assert why_not_built() == f"kernels are not built (there is no a.cubin); run: {HOW}"
    make(sources)
    assert why_not_built() is None
    works = builder.find_toolchain
    monkeypatch.setattr(builder, "find_toolchain", refuse)
    with pytest.raises(CannotBuildError):
        make(sources)
    # what an older build left does not count
    assert why_not_built() == f"kernels are not built (no g++); run: {HOW}"
    monkeypatch.setattr(builder, "find_toolchain", works)
    make(sources)
    assert why_not_built() is None
    (sources / "cubins/b.cubin").unlink()
    assert "(there is no b.cubin)" in why_not_built()


@pytest.mark.parametrize("system", [("Darwin", "arm64"), ("Linux", "riscv64")])
def test_other_machines_cannot_build(system, monkeypatch):
    monkeypatch.setattr(builder.platform, "system", lambda: system[0])
    monkeypatch.setattr(builder.platform, "machine", lambda: system[1])
    with pytest.raises(CannotBuildError, match="Linux x86_64 and aarch64 only"):
        find_toolchain()


@on_linux
def test_without_compilers(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CannotBuildError, match=r"nvcc needs g\+\+"):
        find_toolchain()
    monkeypatch.setattr(builder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CannotBuildError, match=r"no nvidia-cuda-nvcc"):
        find_toolchain()


@pytest.mark.parametrize("text", ["release 13.2, V13.2.1", "release 12.9"])
def test_an_old_ptxas_is_refused(text, tmp_path):
    tool = tmp_path / "ptxas"
    tool.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, {text}'\n")
    tool.chmod(0o755)
    with pytest.raises(HaastError, match="is too old") as error:
        builder._ptxas_release(tool)
    assert not isinstance(error.value, CannotBuildError) and "\n" not in str(error.value)


def test_the_command_line(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(builder, "build", lambda extra_flags: asked.append(extra_flags) or ["a"])
    assert main([]) == main(["--lineinfo"]) == 0 and asked == [(), ("-lineinfo",)]
    assert main(["--fast"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "built: a\n" * 2 and "allowed: --lineinfo" in captured.err


@on_linux
def test_the_real_compiler(tmp_path, capfd):
    (tmp_path / "one.cu").write_text(SOURCE.replace("VALUE", "1"))
    (tmp_path / "two.cu").write_text(SOURCE.replace("VALUE", "undeclared"))
    with pytest.raises(HaastError, match=r"^two\.cu did not compile"):
        make(tmp_path)
    assert 'identifier "undeclared" is undefined' in capfd.readouterr().err
    cubin = (tmp_path / "cubins/one.cubin").read_bytes()
    assert cubin.startswith(b"\x7fELF") and str(tmp_path).encode() not in cubin
    assert "0 bytes spill" in (tmp_path / "cubins/one.log").read_text()


def test_building_needs_the_standard_library_only():
    script = "import haast.cuda.build, sys; print('torch' in sys.modules, 'click' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
