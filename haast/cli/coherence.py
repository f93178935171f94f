"""`haast coherence`: the guard, as a program with an exit code."""

import json
import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from haast.cli.options import max_batch_size, model_options
from haast.cli.report import count_bar, print_warning
from haast.config import EngineConfig

if TYPE_CHECKING:
    from haast.coherence import Report


@click.command("coherence", short_help="Check that a model still makes sense.")
@model_options
@max_batch_size(default=32)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def command(as_json: bool, **options: Any) -> None:
    """Ask a model fixed questions and judge the answers; exit code 0 = coherent, 1 = not."""
    from haast.coherence import check_coherence

    config = EngineConfig(**options)
    with count_bar("asking") as progress:
        report = check_coherence(config, progress)
    print_warning(report.warning)
    if as_json:
        click.echo(json.dumps(_document(report), ensure_ascii=False))
    else:
        _print(report)
    sys.exit(0 if report.passed else 1)


def _document(report: "Report") -> dict[str, Any]:
    """JSON has no infinity and no NaN: such a value is null."""
    checks = [
        asdict(check)
        | {"passed": check.passed, "value": check.value if math.isfinite(check.value) else None}
        for check in report.checks
    ]
    return asdict(report) | {"passed": report.passed, "checks": checks}


def _print(report: "Report") -> None:
    table = Table(title=Text(report.model), title_justify="left")
    for heading in ("check", "value", "limit", ""):
        table.add_column(heading)
    for check in report.checks:
        sign = "<=" if check.is_ceiling else ">="
        verdict = "[green]pass[/green]" if check.passed else "[red]FAIL[/red]"
        table.add_row(check.name, f"{check.value:.6g}", f"{sign} {check.limit:g}", verdict)
    for name, why in report.skipped.items():
        table.add_row(name, "-", "", Text(f"not measured: {why}"))
    console = Console(highlight=False)
    console.print(table)
    for prompt, expected, given in report.wrong[:5]:
        console.print(f"{prompt}\n  expected {expected!r}\n  given    {given!r}", markup=False)
    console.print("coherent" if report.passed else "NOT coherent")
