"""`git bisect run haast baseline check` over a history in which something was broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from haast.baseline.document import write
from tests.baseline.made_up import baseline, coherence, decode, kernels, prefill

ROOT = Path(__file__).parents[2]
LENGTH = 10
NO_CONFIG = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
NOBODY = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
PRODUCT = """#!{python} -S
import json, sys
results = {results}
result = results[" ".join(sys.argv[4:6])]
print("a table", json.dumps(result), sep="\\n")
sys.exit(1 if result.get("passed") is False else 0)
"""
SYNTAX_ERROR = "#!{python} -S\nresults = {{\n"


def product(speed=60.0, is_coherent=True):
    """A program that answers the commands of `made_up`."""
    results = {
        "coherence --json": coherence(is_coherent),
        "bench decode": decode(b1=speed, b64=70.0),
        "bench prefill": prefill(50.0),
        "ops --json": kernels(),
    }
    return PRODUCT.format(python=sys.executable, results=results)


class History:
    """A repository with one program, changed in each commit."""

    def __init__(self, folder):
        self.folder = folder
        self.git("init", "--quiet")

    def git(self, *words):
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tools")])
        done = subprocess.run(
            ["git", *NOBODY, *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=os.environ | NO_CONFIG | {"PYTHONPATH": paths},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def commit(self, number, program):
        path = self.folder / "product"
        path.write_text(f"{program}# {number}\n")
        path.chmod(0o755)
        self.git("add", "product")
        self.git("commit", "--quiet", "-m", f"commit {number}")

    def bisect(self, document):
        """What the first bad commit is called, and the log of the search."""
        self.git("bisect", "start", "HEAD", f"HEAD~{LENGTH - 1}")
        script = str(ROOT / "tests/baseline/bisected.py")
        self.git("bisect", "run", sys.executable, script, document, "--repeats", "2")
        found = self.git("show", "--no-patch", "--format=%s", "refs/bisect/bad").strip()
        return found, self.git("bisect", "log")


@pytest.fixture
def search(tmp_path):
    """search(programs, one a commit) -> first bad commit, log; from the first to the last."""

    def run(programs):
        document = tmp_path / "known.json"
        write(baseline(), document)
        (tmp_path / "repository").mkdir()
        history = History(tmp_path / "repository")
        for number, program in enumerate(programs):
            history.commit(number, program)
        return history.bisect(str(document))

    return run


@pytest.mark.parametrize("first", [2, 6])
def test_a_planted_regression(search, first):
    """4 % less, among changes of 1 and 2 % that are none."""
    speeds = [(60.0, 59.0, 60.6)[number % 3] for number in range(LENGTH)]
    speeds[first:] = [57.5] * (LENGTH - first)
    assert search([product(speed) for speed in speeds])[0] == f"commit {first}"


def test_a_planted_break_of_coherence(search):
    """Which even makes it faster."""
    bad = product(speed=90.0, is_coherent=False)
    assert search([product()] * 7 + [bad] * (LENGTH - 7))[0] == "commit 7"


def test_commits_that_cannot_be_measured_are_skipped(search):
    programs = [product()] * 7 + [product(speed=50.0)] * (LENGTH - 7)
    programs[3:5] = [SYNTAX_ERROR.format(python=sys.executable)] * 2
    found, log = search(programs)
    assert found == "commit 7" and "git bisect skip" in log
