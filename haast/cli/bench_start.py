"""`haast bench start`: from a process's start to its first token, phase by phase."""

from datetime import date
from pathlib import Path
from typing import Any

import click

from haast.cli.options import max_batch_size, model_options, picked
from haast.cli.results import OUT, finish
from haast.config import EngineConfig

positive = click.IntRange(1)


@click.command("start", short_help="Where the time to a process's first token goes.")
@model_options
@max_batch_size(None, "256 on a GPU, 8 on the CPU")
@click.option("--input", "input_len", type=positive, default=128, show_default=True)
@click.option(
    "--runs",
    "num_runs",
    type=positive,
    default=3,
    show_default=True,
    help="Processes, one after the other; the first may find the weights on disk only.",
)
@OUT
def start(input_len: int, num_runs: int, out: Path | None, **options: Any) -> None:
    """Fresh processes that load a model and answer one prompt; the table is of the median one.

    They wait for the device after each phase, so phases that could overlap do not.
    """
    from haast.bench.checkout import commit
    from haast.bench.start import measure, median_run, table_lines

    config = picked(EngineConfig, options)
    runs = []
    for number in range(1, num_runs + 1):
        runs.append(measure(config, input_len))
        click.echo(f"run {number}: first token after {runs[-1]['first_token_s']:.2f} s", err=True)
    middle = median_run(runs)
    click.echo("\n".join(table_lines(middle)))
    times = [run["first_token_s"] for run in runs]
    when = {"bench": "start", "date": date.today().isoformat(), "commit": commit()}
    finish(when | middle | {"runs_s": times}, out)
