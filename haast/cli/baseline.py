"""`haast baseline`: what is known to be good, and whether it still is."""

import sys
from typing import TYPE_CHECKING

import click

from haast.baseline.known_good import REPEATS
from haast.cli.bisectable import BisectableCommand
from haast.cli.tables import print_verdicts

if TYPE_CHECKING:
    from haast.baseline.check import Outcome
    from haast.baseline.document import Baseline
    from haast.baseline.known_good import Kind

repeats_option = click.option(
    "--repeats",
    type=click.IntRange(2),
    default=REPEATS,
    show_default=True,
    help="Runs of each timed command, which tell its noise.",
)
tolerance_option = click.option(
    "--tolerance",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Changes up to this are the same. Default: 3 on a GPU, 20 on the CPU.",
)


@click.group("baseline", short_help="Save what is known to be good; check that nothing got worse.")
def command() -> None:
    """Coherence, and speeds as shares of the ceilings that each run measures itself."""


@command.command("save", cls=BisectableCommand, short_help="Measure, and keep it.")
@click.argument("name")
@click.option(
    "--devices",
    type=click.Choice(["cpu", "gpu"]),
    help="Which set to run. Default: gpu where the first GPU is a Hopper, else cpu.",
)
@repeats_option
def save(name: str, devices: str | None, repeats: int) -> None:
    """Run the known-good set and write bench/baselines/NAME.json. Nothing is written, and the exit
    code is 1, if the model is not coherent; it is 125 if something cannot be measured."""
    from haast.baseline.check import measure_new
    from haast.baseline.document import path_of, write
    from haast.baseline.known_good import KNOWN_GOOD
    from haast.baseline.machine import has_hopper
    from haast.baseline.running import run_case
    from haast.baseline.saving import describe

    path = path_of(name)
    is_gpu = devices == "gpu" or (devices is None and has_hopper())
    kind: Kind = "gpu" if is_gpu else "cpu"
    prepare(kind)
    outcome = measure_new(KNOWN_GOOD[kind], repeats, run_case, tell)
    print_saved(outcome)
    if outcome.code == 0:
        write(describe(path.stem, kind, outcome.collected.cases), path)
        click.echo(f"saved {path}")
    sys.exit(outcome.code)


@command.command("check", cls=BisectableCommand, short_help="Measure again, and compare.")
@click.argument("name")
@repeats_option
@tolerance_option
def check(name: str, repeats: int, tolerance: float | None) -> None:
    """Run the commands of bench/baselines/NAME.json, or of the file NAME if it ends in .json, and
    compare. The exit code is for `git bisect run`: 0 = nothing is worse, 1 = a speed is worse or
    the model is not coherent, 125 = it cannot be told.

    A change is one that exceeds both the tolerance and three standard errors of the runs."""
    from haast.baseline.document import path_of, read

    baseline = read(path_of(name))
    outcome = checked(baseline, repeats, tolerance)
    print_outcome(baseline, outcome)
    sys.exit(outcome.code)


def checked(baseline: "Baseline", repeats: int, tolerance: float | None) -> "Outcome":
    """Holds this machine's code against a baseline. Raises BaselineError if it is of another."""
    from haast.baseline.check import check
    from haast.baseline.errors import BaselineError
    from haast.baseline.known_good import TOLERANCE
    from haast.baseline.machine import this_machine
    from haast.baseline.running import run_case

    reason = baseline.why_not_here(this_machine(with_gpu=baseline.kind == "gpu"))
    if reason is not None:
        raise BaselineError(reason)
    prepare(baseline.kind)
    allowed = TOLERANCE[baseline.kind] if tolerance is None else tolerance / 100
    return check(baseline, repeats, allowed, run_case, tell)


def prepare(kind: str) -> None:
    """Kernels are those of the sources; where there is no compiler that is said."""
    from haast.baseline.kernels import build_kernels

    why = build_kernels() if kind == "gpu" else None
    if why is not None:
        tell(f"kernels are taken as they are: {why}")


def tell(line: str) -> None:
    """Progress, on standard error."""
    click.echo(line, err=True)


def print_saved(outcome: "Outcome") -> None:
    """What was measured, or what stands against it."""
    from haast.baseline.report import SAVED_HEADINGS, saved_rows

    print_verdicts(SAVED_HEADINGS, saved_rows(outcome.collected.metrics))
    _print_end(outcome)


def print_outcome(baseline: "Baseline", outcome: "Outcome") -> None:
    """What else is not as it was, the verdicts, coherence, and what could not be measured."""
    from haast.baseline.machine import differences, this_machine
    from haast.baseline.report import HEADINGS, rows

    now = this_machine(with_gpu=baseline.kind == "gpu")
    for line in (*differences(baseline.machine, now), *outcome.notes):
        click.echo(line)
    print_verdicts(HEADINGS, rows(outcome.verdicts, outcome.collected.metrics))
    _print_end(outcome)


def _print_end(outcome: "Outcome") -> None:
    from haast.baseline.report import coherence_word, failed_checks

    collected = outcome.collected
    click.echo(f"coherence: {coherence_word(collected.is_coherent)}")
    for line in failed_checks(collected.coherence) if collected.coherence else ():
        click.echo(f"  {line}")
    for line in outcome.problems:
        click.echo(f"not measured: {line}")
    ends = {0: "good", 1: "WORSE", 125: "cannot be told"}
    click.echo("NOT coherent" if collected.is_coherent is False else ends[outcome.code])
