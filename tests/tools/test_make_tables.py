"""README's table: made from the newest results, by one command."""

import json
import subprocess
from pathlib import Path

import make_tables
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Our README and results, in a folder of their own."""
    (tmp_path / "bench/results").mkdir(parents=True)
    for name in ("decode", "prefill"):
        text = (ROOT / f"bench/results/{name}.jsonl").read_text()
        (tmp_path / f"bench/results/{name}.jsonl").write_text(text)
    (tmp_path / "README.md").write_text((ROOT / "README.md").read_text())
    monkeypatch.setattr(make_tables, "ROOT", tmp_path)
    monkeypatch.setattr(make_tables, "README", tmp_path / "README.md")
    return tmp_path


def test_a_new_result_is_in_the_table_and_nothing_else_changes(checkout):
    path = checkout / "bench/results/decode.jsonl"
    result = json.loads(path.read_text().splitlines()[-1])
    before = (checkout / "README.md").read_text()
    make_tables.main()
    assert (checkout / "README.md").read_text() == before
    result["rows"][0] |= {"batch": 1, "tokens_per_s": 12345.4, "percent_of_floor": 91.6}
    path.write_text(path.read_text() + json.dumps(result) + "\n")
    make_tables.main()
    after = (checkout / "README.md").read_text()
    line = "| decode, batch 1 | 12,345 tokens/s | 92 % |"
    changed = [b for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert changed == [line]


def test_make_tables_is_the_command():
    printed = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "tables"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip().endswith("tools/make_tables.py")
