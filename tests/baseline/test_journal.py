"""LOG.md: what is added can be read back, and what people wrote stays, to the byte."""

import re
from pathlib import Path

import pytest

from haast.baseline.entry import Details, Entry, Facts, check_text, parse, render
from haast.baseline.errors import BaselineError
from haast.baseline.journal import add, entries

ROOT = Path(__file__).parents[2]
FACTS = Facts("abc1234+", "h100", "9d4aa1c", "NVIDIA H100 80GB HBM3, driver 580.1", "pass")
ROWS = [
    ("decode_b1", "59.49 %", "60.7 %", "+2.0 %", "3.0 %", "same", "507 tokens/s"),
    ("moe_t64", "87 %", "80 %", "-8.0 %", "3.0 %", "worse", "170.1 us"),
    ("prefill_1024", "53 %", "-", "-", "-", "missing", "-"),
]
MORE = Details(("bench decode --batch 1", "coherence"), (), {"moe_up at 64": "a -> b"})
TEXT = "Larger rings of linear\n\nThey were to bring 50 us.\nThey did."


def made(text=TEXT, facts=FACTS, rows=ROWS, more=MORE):
    return render("2026-11-26", text, facts, list(rows), more)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "LOG.md"


def test_what_an_entry_looks_like():
    lines = made().splitlines()
    assert lines[0] == "## 2026-11-26 Larger rings of linear"
    assert lines[2:4] == ["They were to bring 50 us.", "They did."]
    assert " ".join(lines[5:7]) == (
        "Commit abc1234+ against baseline h100 of commit 9d4aa1c; NVIDIA H100 80GB HBM3, driver "
        "580.1. Coherence: pass."
    )
    assert "| moe_t64 | 87 % | 80 % | -8.0 % | 3.0 % | worse | 170.1 us |" in lines
    assert "haast bench decode --batch 1" in lines and "- moe_up: 64 `a -> b`" in lines
    assert all(len(line) <= 100 for line in lines) and "\n\n\n" not in made()


def test_it_is_read_back(log):
    add(log, made())
    (entry,) = entries(log)
    assert entry == Entry("2026-11-26", "Larger rings of linear", FACTS, tuple(ROWS))
    assert entry.value("decode_b1") == 60.7 and entry.value("prefill_1024") is None
    assert entry.value("gone") is entry.row("gone") is None
    assert log.read_text() == "# Log\n\n" + made()


def test_an_incoherent_one(log):
    facts = Facts(*[*vars(FACTS).values()][:4], "FAIL")
    more = Details(("coherence",), ("exact answers is 0.5, must be >= 0.98",), {})
    add(log, made(facts=facts, rows=(), more=more))
    (entry,) = entries(log)
    assert (entry.facts.coherence, entry.rows) == ("FAIL", ())
    assert "\n- exact answers is 0.5, must be >= 0.98\n" in log.read_text()
    assert "CUDA kernels: none, the CPU runs references." in log.read_text()


def test_the_log_of_this_project_survives(log):
    before = (ROOT / "LOG.md").read_bytes()
    log.write_bytes(before)
    add(log, made("First"))
    add(log, made("Second"))
    after = log.read_bytes()
    at = re.search(rb"^## ", before, re.M).start()
    added = (made("Second") + made("First")).encode()
    assert after == before[:at] + added + before[at:]
    found = entries(log)
    assert [entry.title for entry in found[:2]] == ["Second", "First"]
    titles = re.findall(r"^## \d{4}-\d\d-\d\d (.*)$", before.decode(), re.M)
    assert [entry.title for entry in found[2:]] == titles and len(titles) > 5


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"# Log",
        b"# Log\n",
        b"# Log\n\nNo entry yet.\n\n",
        b"# Log\r\n\r\nIn Windows.\r\n\r\n## 2026-11-01 Old\r\n\r\nText.\r\n",
        b"# Log\n```\n## 2026-01-01 no heading\n```\n## 2026-11-01 Old\nlast line \xff\xfe",
        b"~~~\n```\n## not one\n~~~\n\n## 2026-11-01 Old \xe2\x80\xa8\x0c\x85 odd\n",
        b"## Undated\n\n## 2026-11-01 Old\n",
    ],
)
def test_every_byte_survives(log, before):
    log.write_bytes(before)
    add(log, made("First\n\nwith a body"))
    add(log, made("Second"))
    after = log.read_bytes()
    start = after.index(b"## 2026-11-26 Second")
    newline = b"\r\n" if b"\r\n" in before else b"\n"
    added = (made("Second") + made("First\n\nwith a body")).encode().replace(b"\n", newline)
    assert after[start:].startswith(added)
    left = after[:start] + after[start + len(added) :]
    if b"\n## " in b"\n" + before:
        assert left == before
    else:
        assert left.startswith(before or b"# Log") and not left[len(before or b"# Log") :].strip()
    assert [entry.title for entry in entries(log)][:2] == ["Second", "First"]
    assert all(entry.title != "no heading" for entry in entries(log))
    assert entries(log)[0].rows == tuple(ROWS)


def test_hand_edits_are_read(log):
    add(log, made())
    text = log.read_text()
    text = text.replace("Larger rings of linear", "Larger rings, and smaller ones")
    text = text.replace("| decode_b1 | 59.49 % | 60.7 %", "|  decode_b1  |59.49 %|  61 %")
    text = text.replace("against baseline", "against\n   baseline").replace(
        "They did.", "No!\n" * 9
    )
    log.write_text(text + "\nA last word of mine:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    (entry,) = entries(log)
    assert entry.title == "Larger rings, and smaller ones" and entry.facts == FACTS
    assert entry.value("decode_b1") == 61 and len(entry.rows) == 3
    log.write_text(log.read_text().replace("|  61 %", "| about 61"))
    with pytest.raises(BaselineError, match="entry 'Larger.*decode_b1 is 'about 61', which is no"):
        entries(log)[0].value("decode_b1")


def test_entries_by_hand_have_no_facts():
    body = "\n| tokens | before |\n|---|---|\n| 1 | 31.7 |\n\nCommit 9d4aa1c, a random 20b.\n"
    assert parse("2026-11-20", "Title", body) == Entry("2026-11-20", "Title", None, ())


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "the text is empty"),
        (" \n", "the text is empty"),
        ("\n\nlate", "the text is empty"),
        ("fine\n## 2026-01-01 a second", "a line of the text begins with #"),
        ("fine\n```\ncode", "does not close it"),
    ],
)
def test_texts_that_would_not_be_read_back(text, reason):
    with pytest.raises(BaselineError, match=reason):
        check_text(text)
    check_text("# fine as a heading\n\n```\ncode\n```\n")


def test_a_journal_that_is_not_there(log):
    with pytest.raises(BaselineError, match="there is no .*LOG.md here; haast journal add"):
        entries(log)
    log.parent.joinpath("other.md").write_text("x")
    add(log, made())
    assert sorted(path.name for path in log.parent.iterdir()) == ["LOG.md", "other.md"]


def test_a_link_stays_one(log, tmp_path):
    (tmp_path / "real.md").write_text("# Log\n\n")
    (tmp_path / "real.md").chmod(0o640)
    log.symlink_to("real.md")
    add(log, made())
    assert log.is_symlink() and "decode_b1" in (tmp_path / "real.md").read_text()
    assert (tmp_path / "real.md").stat().st_mode & 0o777 == 0o640
