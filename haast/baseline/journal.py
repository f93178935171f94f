"""LOG.md: entries newest first, whoever wrote them."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from haast.baseline.entry import FENCE, Entry, parse
from haast.baseline.errors import BaselineError

LOG = Path("LOG.md")
TITLE = "# Log\n\n"
HEADING = re.compile(r"## +(?:(\d{4}-\d\d-\d\d) +)?(.*)")
LINE = re.compile(r"[^\n]*\n|[^\n]+")


def add(path: Path, entry: str) -> None:
    """Put an entry above all others; every byte that is there stays as it is."""
    old = (_read(path) if path.is_file() else "") or TITLE
    at = next((start for start, _ in _headings(old)), len(old))
    newline = "\r\n" if "\r\n" in old else "\n"
    gap = ""
    if at == len(old) and not old.endswith(newline * 2):
        gap = newline if old.endswith(newline) else newline * 2
    _replace(path, old[:at] + gap + entry.replace("\n", newline) + old[at:])


def entries(path: Path) -> list[Entry]:
    """All that have a date, newest first as in the file. Raises BaselineError without a file."""
    if not path.is_file():
        raise BaselineError(f"there is no {path} here; haast journal add begins one")
    text = _read(path)
    found = list(_headings(text))
    ends = [start for start, _ in found[1:]] + [len(text)]
    return [
        parse(match[1], match[2].strip(), text[start + match.end() : end])
        for (start, match), end in zip(found, ends, strict=True)
        if match[1]
    ]


def _headings(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Where headings of the second level begin; those in blocks of code are none."""
    fence = None
    for line in LINE.finditer(text):
        mark = FENCE.match(line[0])
        if mark is not None and fence in (None, mark[1]):
            fence = None if fence else mark[1]
        elif fence is None and (heading := HEADING.match(line[0])):
            yield line.start(), heading


def _read(path: Path) -> str:
    """As text that gives the same bytes again."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _replace(path: Path, text: str) -> None:
    """All of the new file or all of the old one, whatever happens."""
    target = path.resolve()
    half = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    half.write_bytes(text.encode("utf-8", "surrogateescape"))
    if target.exists():
        shutil.copymode(target, half)
    half.replace(target)
