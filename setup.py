"""Compiles the kernels while the package is built; everything else is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent))
from haast.cuda.build import CannotBuildError, build  # noqa: E402


class BuildKernels(build_py):
    """Cubins first, in the source tree; then they are package data like any other."""

    def run(self) -> None:
        try:
            build()
        except CannotBuildError as error:
            print(f"warning: {error}; haast will run on the CPU only", file=sys.stderr)
        super().run()


setup(cmdclass={"build_py": BuildKernels})
