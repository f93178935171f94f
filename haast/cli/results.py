"""Where benches put their result."""

import json
from pathlib import Path
from typing import Any

import click

from haast.cli.options import FILE

OUT = click.option("--out", type=FILE, help="File to append the JSON result to, one line a run.")


def finish(result: dict[str, Any], out: Path | None) -> None:
    """Append the document where it is wanted and print it."""
    line = json.dumps(result)
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    click.echo(line)
