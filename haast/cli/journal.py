"""`haast journal`: what changed, why, and what it did to speed and coherence."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from haast.cli.baseline import checked, print_outcome, repeats_option, tolerance_option
from haast.cli.options import FILE

if TYPE_CHECKING:
    from haast.baseline.check import Outcome
    from haast.baseline.document import Baseline

UNMEASURED = 125


@click.group("journal", short_help="Keep LOG.md: what changed, and its numbers.")
def command() -> None:
    """Entries of LOG.md, here. Those written by hand stay as they are."""


@command.command("add", short_help="Check, and write an entry.")
@click.argument("text")
@click.option(
    "--baseline",
    "name",
    help="What to compare with. Default: the one of bench/baselines that is of this machine.",
)
@repeats_option
@tolerance_option
def add(text: str, name: str | None, repeats: int, tolerance: float | None) -> None:
    """Run `haast baseline check` and put an entry on top of LOG.md: TEXT (its first line is the
    heading), commands, metrics, coherence and CUDA kernels. Exit code: the check's; where it could
    not be measured (125) nothing is written."""
    from haast.baseline.entry import check_text
    from haast.baseline.journal import LOG
    from haast.baseline.journal import add as put

    check_text(text)
    baseline = _baseline(name)
    outcome = checked(baseline, repeats, tolerance)
    print_outcome(baseline, outcome)
    if outcome.code != UNMEASURED:
        put(LOG, _entry(text, baseline, outcome))
        click.echo(f"added to {LOG}")
    sys.exit(outcome.code)


@command.command("list", short_help="What the journal says.")
@click.option("--metric", help="Only checks that measured it, such as decode_b1.")
def list_(metric: str | None) -> None:
    """A line an entry, newest first; entries written by hand have dashes."""
    from haast.baseline.journal import LOG, entries
    from haast.baseline.report import DASH

    for entry in entries(LOG):
        facts, row = entry.facts, entry.row(metric) if metric else None
        if metric and row is None:
            continue
        commit, coherence = (facts.commit, facts.coherence) if facts else (DASH, DASH)
        where = facts.machine.split(",")[0] if facts else DASH
        cells = [entry.date, f"{commit:9}", f"{coherence:4}", f"{where:24}"]
        if row is not None:
            cells += [f"{cell:>9}" for cell in (row[2], row[3], row[5])]
        click.echo("  ".join([*cells, entry.title]))


@command.command("plot", short_help="Draw metrics over commits.")
@click.argument("file", type=FILE)
@click.option("--metric", "metrics", multiple=True, help="Repeatable. Default: all.")
def plot(file: Path, metrics: tuple[str, ...]) -> None:
    """Draw what checks measured into FILE.png (or .svg, .pdf), oldest first."""
    from haast.baseline.history import draw, series
    from haast.baseline.journal import LOG, entries
    from haast.bench.plot import check_plot

    check_plot(file, "haast journal plot")
    draw(*series(entries(LOG), metrics)).savefig(file)
    click.echo(f"wrote {file}")


def _baseline(name: str | None) -> "Baseline":
    """By its name, or the only one of this machine. Raises BaselineError."""
    from haast.baseline.document import FOLDER, path_of, read
    from haast.baseline.errors import BaselineError
    from haast.baseline.machine import has_hopper, this_machine

    if name is not None:
        return read(path_of(name))
    kind = "gpu" if has_hopper() else "cpu"
    machine = this_machine(with_gpu=kind == "gpu")
    known = [read(path) for path in sorted(FOLDER.glob("*.json"))]
    found = [b for b in known if b.kind == kind and b.why_not_here(machine) is None]
    if len(found) != 1:
        names = ", ".join(baseline.name for baseline in found) or "none"
        raise BaselineError(f"of this machine there is {names} in {FOLDER}; name one: --baseline")
    return found[0]


def _entry(text: str, baseline: "Baseline", outcome: "Outcome") -> str:
    from datetime import date

    from haast.baseline.entry import Details, Facts, render
    from haast.baseline.kernels import kernels_of
    from haast.baseline.known_good import KERNELS
    from haast.baseline.machine import this_machine
    from haast.baseline.report import coherence_word, failed_checks, rows
    from haast.bench.checkout import commit

    collected = outcome.collected
    facts = Facts(
        commit=commit() or "unknown",
        baseline=baseline.name,
        base_commit=(baseline.commit or "unknown") + "+" * baseline.dirty,
        machine=this_machine(with_gpu=baseline.kind == "gpu").describe(),
        coherence=coherence_word(collected.is_coherent),
    )
    details = Details(
        commands=tuple(" ".join(m.case.command) for m in collected.cases),
        failed=tuple(failed_checks(collected.coherence or {"checks": ()})),
        kernels=kernels_of(collected.result(KERNELS)),
    )
    return render(
        date.today().isoformat(),
        text,
        facts,
        rows(outcome.verdicts, outcome.collected.metrics),
        details,
    )
