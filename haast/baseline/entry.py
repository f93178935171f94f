"""An entry of the journal: made of a check, written as Markdown, and read back from it."""

import re
from dataclasses import dataclass
from textwrap import fill

from haast.baseline.errors import BaselineError
from haast.baseline.report import DASH, HEADINGS

WIDTH = 100
NO_KERNELS = "none, the CPU runs references"
HEAD = f"| {' | '.join(HEADINGS)} |"
FACTS = re.compile(
    r"Commit (?P<commit>\S+) against baseline (?P<baseline>\S+) of commit (?P<base_commit>\S+); "
    r"(?P<machine>.+?)\. Coherence: (?P<coherence>\w+)\."
)
FENCE = re.compile(r" {0,3}(```|~~~)")


@dataclass(frozen=True)
class Facts:
    """What a check ran on, and how it ended."""

    commit: str
    baseline: str
    base_commit: str
    machine: str
    coherence: str
    """pass or FAIL"""


@dataclass(frozen=True)
class Entry:
    """One heading of the journal and what is below it. Those that people write have no facts."""

    date: str
    title: str
    facts: Facts | None
    rows: tuple[tuple[str, ...], ...]
    """cells under HEADINGS, a row a metric"""

    def row(self, metric: str) -> tuple[str, ...] | None:
        return next((row for row in self.rows if row[0] == metric), None)

    def value(self, metric: str) -> float | None:
        """What it was then. Raises BaselineError where a hand has made no number of it."""
        row = self.row(metric)
        if row is None or row[2] == DASH:
            return None
        try:
            return float(row[2].split()[0])
        except (ValueError, IndexError):
            where = f"entry '{self.title}' of {self.date}"
            raise BaselineError(f"{where}: {metric} is '{row[2]}', which is no number") from None


def check_text(text: str) -> None:
    """Raises BaselineError for a text that would not be read back as one entry."""
    lines = text.splitlines()
    if not text.strip() or not lines[0].strip():
        raise BaselineError("the text is empty; its first line becomes the entry's heading")
    if any(line.startswith("#") for line in lines[1:]):
        raise BaselineError("a line of the text begins with #, which would begin another entry")
    if sum(bool(FENCE.match(line)) for line in lines) % 2:
        raise BaselineError("the text opens a block of code with ``` and does not close it")


@dataclass(frozen=True)
class Details:
    """What of a check only people read."""

    commands: tuple[str, ...]
    failed: tuple[str, ...]
    """checks of coherence"""
    kernels: dict[str, str]
    """`moe_up at 64` -> symbols"""


def render(date: str, text: str, facts: Facts, rows: list[tuple[str, ...]], more: Details) -> str:
    """The entry as Markdown, ending with an empty line."""
    title, _, body = text.strip().partition("\n")
    told = (
        f"Commit {facts.commit} against baseline {facts.baseline} of commit {facts.base_commit}; "
        f"{facts.machine}. Coherence: {facts.coherence}."
    )
    table = [HEAD, "|" + "---|" * len(HEADINGS), *(f"| {' | '.join(row)} |" for row in rows)]
    blocks = [
        f"## {date} {title.strip()}",
        body.strip(),
        fill(told, WIDTH, break_long_words=False, break_on_hyphens=False),
        "\n".join(f"- {line}" for line in more.failed),
        "\n".join(table) if rows else "",
        "\n".join(["```", *(f"haast {command}" for command in more.commands), "```"]),
        _kernels_text(more.kernels),
    ]
    return "\n\n".join(filter(None, blocks)) + "\n\n"


def _kernels_text(kernels: dict[str, str]) -> str:
    """A line an op; `haast ops` tells the rest."""
    lines: dict[str, list[str]] = {}
    for call, symbols in kernels.items():
        op, _, size = call.partition(" at ")
        lines.setdefault(op, []).append(f"{size} `{symbols or 'nothing'}`")
    if not lines:
        return f"CUDA kernels: {NO_KERNELS}."
    told = "\n".join(f"- {op}: {', '.join(found)}" for op, found in lines.items())
    return f"CUDA kernels, by the number of tokens:\n\n{told}"


def parse(date: str, title: str, body: str) -> Entry:
    """An entry from its Markdown, however its paragraphs are wrapped."""
    found = [*FACTS.finditer(" ".join(body.split()))]
    facts = Facts(**found[-1].groupdict()) if found else None
    return Entry(date, title, facts, _rows(body.splitlines()) if facts else ())


def _rows(lines: list[str]) -> tuple[tuple[str, ...], ...]:
    """Of the last table with our headings."""
    starts = [index for index, line in enumerate(lines) if line.strip() == HEAD]
    rows = []
    for line in lines[starts[-1] + 2 :] if starts else ():
        cells = tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
        if not line.strip().startswith("|") or len(cells) != len(HEADINGS):
            break
        rows.append(cells)
    return tuple(rows)
