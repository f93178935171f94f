"""`git bisect run haast baseline check` over a history in which something was broken."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from haast.baseline.document import write
from tests.baseline.made_up import baseline

ROOT = Path(__file__).parents[2]
FINE = {"speed": 60.0, "is_coherent": True, "is_broken": False}
LENGTH = 10
NO_CONFIG = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
NOBODY = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")


class History:
    """A repository whose product.json says how fast and how sane its product is."""

    def __init__(self, folder):
        self.folder = folder
        self.git("init", "--quiet")

    def git(self, *words, code=0):
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tools")])
        done = subprocess.run(
            ["git", *NOBODY, *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=os.environ | NO_CONFIG | {"PYTHONPATH": paths},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def commit(self, number, **product):
        fields = FINE | product | {"number": number}
        (self.folder / "product.json").write_text(json.dumps(fields))
        self.git("add", "product.json")
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
    """search(first bad, broken, **what the bad ones are) -> first bad commit, log."""

    def run(first, broken, **bad):
        document = tmp_path / "known.json"
        write(baseline(), document)
        (tmp_path / "repository").mkdir()
        history = History(tmp_path / "repository")
        for number in range(LENGTH):
            product = bad if number >= first else {}
            history.commit(number, is_broken=number in broken, **product)
        return history.bisect(str(document))

    return run


@pytest.mark.parametrize("first", [2, 6])
def test_a_planted_regression(search, first):
    """4 % slower, and it speeds up by 1 % and slows down by 2 % on the way."""
    assert search(first, (), speed=57.5)[0] == f"commit {first}"


def test_a_planted_break_of_coherence(search):
    assert search(7, (), is_coherent=False)[0] == "commit 7"


def test_commits_that_cannot_be_measured_are_skipped(search):
    found, log = search(7, (3, 4), speed=50.0)
    assert found == "commit 7" and "git bisect skip" in log
