"""`haast ops`: which implementation of each op runs, and why the others do not."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from haast.cli.shapes import model_option, tokens_option

if TYPE_CHECKING:
    from haast.bench.tables import OpTable


@click.command("ops", short_help="Show which kernel each op runs, and why.")
@model_option
@tokens_option("1,64,4096")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
def command(model: str, tokens: tuple[int, ...], as_json: bool) -> None:
    """For each op and number of tokens: what runs on a Hopper GPU and the CUDA kernels it
    launches, what does not run and why. Needs no GPU."""
    from haast.bench.cases import read_config
    from haast.bench.tables import signature, survey

    found = survey(read_config(model), tokens)
    if as_json:
        # an op without kernels has no tables: its reference runs
        ops = [{"op": op.name, "tables": [asdict(t) for t in tables]} for op, tables in found]
        click.echo(json.dumps({"model": model, "ops": ops}))
        return
    for op, tables in found:
        click.echo(signature(op))
        for line in _lines(tables):
            click.echo(f"  {line}")


def _lines(tables: list["OpTable"]) -> list[str]:
    """`>` marks what runs, `x` what does not."""
    if not tables:
        return ["reference (no kernel in its table)"]
    lines = []
    for table in tables:
        width = max(len(verdict.name) for verdict in table.verdicts)
        lines.append(f"{table.num_tokens} tokens")
        for verdict in table.verdicts:
            mark = ">" if verdict.runs else "x"
            launched = " -> ".join(["", *verdict.symbols]).strip()
            why = f"{launched}  ({verdict.because})" if verdict.runs else verdict.reason
            lines.append(f"  {mark} {verdict.name:{width}}  {why}")
    return lines
