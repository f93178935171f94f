"""`haast bench compare`: two results, side by side."""

import sys
from pathlib import Path

import click

from haast.cli.options import FILE
from haast.cli.tables import print_verdicts


@click.command("compare", short_help="Two results of a bench, side by side.")
@click.argument("before", metavar="A.json", type=FILE)
@click.argument("now", metavar="B.json", type=FILE)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    default=3.0,
    show_default=True,
    help="Changes up to this are the same.",
)
def compare(before: Path, now: Path, tolerance: float) -> None:
    """Compare results that benches printed or --out wrote (the last line of a file counts), or
    baselines. Where a bench measured ceilings, shares of the floor are compared, else plain speeds.
    Exit code as of `haast baseline check`; who has one run only cannot tell its noise."""
    from haast.baseline.compare import compare as judge
    from haast.baseline.compare import exit_code
    from haast.baseline.errors import BaselineError
    from haast.baseline.files import differences, read_results
    from haast.baseline.metrics import values_of
    from haast.baseline.report import HEADINGS, rows

    old, new = read_results(before), read_results(now)
    values = values_of(old.metrics), values_of(new.metrics)
    if not values[0].keys() & values[1].keys():
        raise BaselineError(f"{before} and {now} have no metric in common")
    for line in differences(old.setup, new.setup):
        click.echo(line)
    verdicts = judge(*values, tolerance / 100)
    print_verdicts(HEADINGS, rows(verdicts, new.metrics))
    sys.exit(exit_code(True, verdicts, is_whole=True))
