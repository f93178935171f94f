"""`haast bench cpu-decode`: what the references cost, where there is no GPU."""

from pathlib import Path

import click

from haast.cli.options import FILE
from haast.cli.results import OUT, finish
from haast.cli.shapes import numbers_option
from haast.config import EngineConfig


@click.command("cpu-decode", short_help="A model's decode steps on one core of the CPU.")
@click.option("--model-path", type=FILE, help="Folder of a checkpoint. Default: haast-tiny.")
@numbers_option("--batch", "1,4", "Requests at a time, with commas between.")
@click.option("--output", "output_len", type=click.IntRange(16), default=48, show_default=True)
@OUT
def cpu_decode(
    model_path: Path | None, batch: tuple[int, ...], output_len: int, out: Path | None
) -> None:
    """Random prompts of 16 tokens, continued greedily by plain torch references. Times are CPU
    seconds of one thread, medians; the floor is their FLOP at the rate of bf16 matrix products,
    measured between the steps."""
    from haast.bench.cpu_decode import HEADING, INPUT, document, load_subject, measure, row_line

    wishes = EngineConfig(
        model_path=model_path,
        devices="cpu",
        max_batch_size=max(batch),
        max_length=INPUT + output_len,
        enable_prefix_caching=False,
    )
    subject = load_subject(wishes)
    click.echo(HEADING)
    rows = []
    for row in measure(subject, batch, output_len):
        rows.append(row)
        click.echo(row_line(row))
    finish(document(subject, output_len, rows), out)
