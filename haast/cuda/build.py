"""Compiles every .cu beside this file to cubins/<stem>.cubin, for sm_90a.

Runs when the package is built, and by hand: `python -m haast.cuda.build [--lineinfo]`. A cubin is
made again when its source, a header, a flag or the compiler changes. What ptxas says is kept in
cubins/<stem>.log. Imports only the standard library: it runs in pip's build environment.
"""

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from haast.errors import HaastError

SOURCES = Path(__file__).parent
CUBINS = SOURCES / "cubins"
FLAGS = (
    "-gencode=arch=compute_90a,code=sm_90a",
    "-cubin",
    "-O3",
    "-std=c++17",
    "-Xptxas=-v,-warn-spills,-warn-lmem-usage",
)
LINEINFO = "-lineinfo"
"""For profilers. Not by default: it writes this machine's paths into what is shipped, 5x larger."""
OLDEST_PTXAS = (13, 3)
HOW = "python -m haast.cuda.build"
_REASON = "not-built.txt"


class CannotBuildError(HaastError):
    """This machine lacks what it takes to compile kernels; the CPU needs none."""


@dataclass(frozen=True)
class Toolchain:
    """The compiler of PyPI's nvidia-cuda-nvcc."""

    root: Path
    ptxas: tuple[int, int]
    """Its release, such as (13, 5)"""

    def command(self, source: Path, cubin: Path, flags: tuple[str, ...]) -> list[str]:
        """What compiles one source."""
        include = f"-I{self.root / 'include'}"
        return [str(self.root / "bin/nvcc"), *flags, include, source.name, "-o", str(cubin)]


def find_toolchain() -> Toolchain:
    """The compiler in this Python's site-packages.

    Raises CannotBuildError if there is none or it cannot run here, HaastError if it is too old.
    """
    system = (platform.system(), platform.machine())
    if system not in (("Linux", "x86_64"), ("Linux", "aarch64")):
        raise CannotBuildError(f"kernels build on Linux x86_64 and aarch64 only, not {system}")
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    roots = [folder / "cu13" for folder in folders if (folder / "cu13/bin/nvcc").is_file()]
    if not roots:
        raise CannotBuildError(f"no nvidia-cuda-nvcc is installed for {sys.executable}")
    if shutil.which("g++") is None:
        raise CannotBuildError("nvcc needs g++, and there is none in PATH")
    return Toolchain(roots[0], _ptxas_release(roots[0] / "bin/ptxas"))


def _ptxas_release(ptxas: Path) -> tuple[int, int]:
    try:
        run = subprocess.run([ptxas, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotBuildError(f"{ptxas} does not run here: {error}") from None
    match = re.search(r"release (\d+)\.(\d+)", run.stdout)
    if match is None:
        raise HaastError(f"{ptxas} does not say its release")
    release = int(match[1]), int(match[2])
    if release < OLDEST_PTXAS:
        raise HaastError(
            f"ptxas {match[1]}.{match[2]} is too old: before 13.3 it overwrites registers that a "
            "running wgmma still reads, and results are wrong"
        )
    return release


def build(
    sources: Path = SOURCES, cubins: Path = CUBINS, extra_flags: tuple[str, ...] = ()
) -> list[str]:
    """Compile what has changed, two files at a time; the names of the cubins that were made.

    Cubins without a source are removed. What the compiler says about an error goes to stderr.
    Raises as find_toolchain does (cubins/not-built.txt then says why), and HaastError if a source
    does not compile.
    """
    cubins.mkdir(exist_ok=True)
    (cubins / _REASON).unlink(missing_ok=True)
    try:
        toolchain = find_toolchain()
    except CannotBuildError as error:
        (cubins / _REASON).write_text(f"{error}\n")
        raise
    flags = (*FLAGS, *extra_flags)
    files = sorted(sources.glob("*.cu"))
    stems = {file.stem for file in files}
    for left in [*cubins.glob("*.cubin"), *cubins.glob("*.log")]:
        if left.stem not in stems:
            left.unlink()
    keys = {file: _key(file, toolchain, flags) for file in files}
    stale = [file for file in files if not _is_built(file, keys[file], cubins)]
    with ThreadPoolExecutor(2) as pool:
        failed = list(pool.map(lambda f: _compile(f, keys[f], toolchain, flags, cubins), stale))
    for name, said in filter(None, failed):
        print(f"{name}:\n{said}", file=sys.stderr)
    if broken := [name for name, _ in filter(None, failed)]:
        raise HaastError(f"{', '.join(broken)} did not compile; the compiler's words are above")
    return [file.stem for file in stale]


def _key(file: Path, toolchain: Toolchain, flags: tuple[str, ...]) -> str:
    """Hash of everything that decides a cubin."""
    key = hashlib.sha256(repr((toolchain.ptxas, flags)).encode())
    for part in (file, *sorted(file.parent.glob("*.cuh"))):
        key.update(f"{part.name} {part.stat().st_size}\n".encode() + part.read_bytes())
    return key.hexdigest()


def _is_built(file: Path, key: str, cubins: Path) -> bool:
    cubin, log = (cubins / f"{file.stem}{suffix}" for suffix in (".cubin", ".log"))
    return cubin.is_file() and log.is_file() and log.read_text().startswith(f"key {key}\n")


def _compile(
    file: Path, key: str, toolchain: Toolchain, flags: tuple[str, ...], cubins: Path
) -> tuple[str, str] | None:
    """Make one cubin and its log; file name and compiler output if that fails."""
    cubin = cubins / f"{file.stem}.cubin"
    half = cubin.with_suffix(f".{os.getpid()}.tmp")
    command = toolchain.command(file, half, flags)
    run = subprocess.run(command, cwd=file.parent, capture_output=True, text=True)
    said = run.stdout + run.stderr
    if run.returncode:
        half.unlink(missing_ok=True)
        cubin.unlink(missing_ok=True)  # older than its source
        return file.name, said
    half.replace(cubin)
    cubin.with_suffix(".log").write_text(f"key {key}\n{said}")
    return None


def why_not_built() -> str | None:
    """What the last build of the package lacked, and what to run; None if all cubins are there."""
    reason = CUBINS / _REASON
    missing = [
        file for file in SOURCES.glob("*.cu") if not (CUBINS / f"{file.stem}.cubin").is_file()
    ]
    if reason.is_file():
        why = reason.read_text().strip()
    elif missing:
        why = f"there is no {min(missing).stem}.cubin"
    else:
        return None
    return f"kernels are not built ({why}); run: {HOW}"


def main(arguments: list[str]) -> int:
    """The command line: 0, or 1 with one line on stderr."""
    if unknown := set(arguments) - {"--lineinfo"}:
        print(f"error: unknown {' '.join(sorted(unknown))}; allowed: --lineinfo", file=sys.stderr)
        return 1
    try:
        made = build(extra_flags=(LINEINFO,) if arguments else ())
    except HaastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"built: {', '.join(made) or 'nothing has changed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
