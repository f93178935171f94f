"""Tables of verdicts on standard output."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

COLOURS = {"worse": "red", "missing": "red", "noisy": "yellow", "better": "green"}
PIPE_WIDTH = 200
"""A file or a pipe has no width to keep to"""


def print_verdicts(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Nothing of no rows."""
    if not rows:
        return
    table = Table()
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for row in rows:
        table.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    console.print(table)
