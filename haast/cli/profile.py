"""`haast profile`: an op's kernels under Nsight Compute, with a verdict on what limits them."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from haast.cli.options import FILE
from haast.cli.shapes import model_option

if TYPE_CHECKING:
    from haast.bench.counters import Line


@click.command("profile", short_help="Look at an op's kernels with Nsight Compute.")
@click.argument("op")
@click.option("--tokens", type=click.IntRange(1), required=True, help="Tokens of the step.")
@model_option
@click.option("--out", type=FILE, help="Report file. Default: OP-TOKENS.ncu-rep, here.")
def command(op: str, tokens: int, model: str, out: Path | None) -> None:
    """Profile the kernels that `haast ops` names for OP at this size and judge their counters."""
    from haast.bench.cases import read_config
    from haast.bench.counters import describe, traffic
    from haast.bench.machine import hopper
    from haast.bench.ncu import find_ncu, read_report, report_path, watch, watch_command
    from haast.bench.tables import find_op, launched

    symbols = launched(find_op(op), read_config(model), tokens)
    hopper()
    ncu = find_ncu()
    report = report_path(out or Path(f"{op}-{tokens}"))
    driven = (op, "--tokens", str(tokens), "--model", model)
    work = watch(watch_command(ncu, report, symbols, driven))
    launches = read_report(ncu, report)
    for launch in launches:
        click.echo(f"{op}, {tokens} tokens of {model}: {launch.kernel}")
        _print(describe(launch, work))
    _print([traffic(launches, work)])
    click.echo(f"report: {report}")


def _print(lines: list["Line"]) -> None:
    for line in lines:
        click.echo(f"  {line.label:22}  {line.value:24}  {line.verdict}".rstrip())
