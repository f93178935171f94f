"""docs/method.md: what it shows is what its commands print, and its numbers are the code's."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from haast.baseline.compare import MOST_NOISE, SIGMAS
from haast.baseline.known_good import KNOWN_GOOD, REPEATS, TOLERANCE
from haast.bench.timing import L2_FACTOR, MIN_REPLAY_US

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "method.md").read_text()
PROSE = " ".join(PAGE.split())
EXAMPLES = re.findall(r"^```bash\n(.*?)^```\n(?:```text\n(.*?)^```)?", PAGE, re.M | re.S)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_prints_what_the_page_says(number, tmp_path):
    script, expected = EXAMPLES[number]
    haast = f'haast() {{ {shlex.quote(sys.executable)} -m haast "$@"; }}\n'
    script = haast + script.replace("/tmp/", f"{tmp_path}/")
    done = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == expected.strip()


def test_both_examples_are_run():
    assert PAGE.count("```bash") == len(EXAMPLES) == 2 and "decode_b1 " in EXAMPLES[1][1]


@pytest.mark.parametrize("kind", ["gpu", "cpu"])
def test_the_set_is_the_one_of_the_page(kind):
    column = {"gpu": 1, "cpu": 2}[kind]
    rows = [line.split("|") for line in PAGE.splitlines() if line.startswith("| `haast ")]
    cells = [row[column].strip().strip("`") for row in rows]
    commands = [f"haast {' '.join(case.command)}" for case in KNOWN_GOOD[kind]]
    assert [cell for cell in cells if cell] == commands


def test_the_numbers_are_the_ones_of_the_code():
    assert TOLERANCE == {"gpu": 0.03, "cpu": 0.20} and "by more than 3 % (20 % on the CPU)" in PROSE
    assert SIGMAS == 3 and "three standard errors" in PROSE
    assert REPEATS == 3 and "Timed commands run three times" in PROSE
    assert MOST_NOISE == 0.25 and "not even a quarter could be told" in PROSE
    assert L2_FACTOR == 3 and "miss it three times over" in PROSE
    assert MIN_REPLAY_US == 1500 and "at least 1.5 ms" in PROSE
