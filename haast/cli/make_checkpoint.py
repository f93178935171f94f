"""`haast make-checkpoint`: random weights of a published model's size, in a published layout."""

from pathlib import Path
from typing import Any

import click

from haast.cli.options import FILE
from haast.cli.report import byte_bar


@click.command("make-checkpoint", short_help="Write a random checkpoint of full size.")
@click.option(
    "--like", required=True, help="gpt-oss-20b, gpt-oss-120b, a config.json or its folder."
)
@click.option("--out", type=FILE, required=True, help="Folder to write; must be empty or new.")
@click.option("--layers", "num_layers", type=int, help="Number of layers, if not the model's.")
@click.option("--experts", "num_experts", type=int, help="Number of experts, if not the model's.")
@click.option(
    "--layout", type=click.Choice(["hf", "original", "bf16"]), default="hf", show_default=True
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--devices", metavar="{cpu,gpu,gpu:N}", help="Where the weights are drawn.")
def command(like: str, out: Path, devices: str | None, **options: Any) -> None:
    """Write random weights with sane statistics, to test size and speed without the real ones."""
    from haast.engine.device import pick_device
    from haast.model.write_checkpoint import make_checkpoint

    with byte_bar("writing") as progress:
        make_checkpoint(like, out, device=pick_device(devices), progress=progress, **options)
    click.echo(f"wrote {out}", err=True)
