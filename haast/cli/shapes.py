"""Options of the commands that look at ops: which model's shapes, how many tokens."""

from collections.abc import Callable

import click

from haast.cli.options import F

DEFAULT_MODEL = "gpt-oss-20b"

model_option = click.option(
    "--model",
    metavar="MODEL",
    default=DEFAULT_MODEL,
    show_default=True,
    help="Whose shapes: gpt-oss-20b, gpt-oss-120b, a config.json or a folder with one. "
    "Weights are random.",
)


def tokens_option(default: str) -> Callable[[F], F]:
    return click.option(
        "--tokens",
        metavar="N,N,...",
        default=default,
        show_default=True,
        callback=_numbers,
        help="Tokens of a step, with commas between.",
    )


def _numbers(_ctx: click.Context, _option: click.Parameter, value: str) -> tuple[int, ...]:
    """`1,64,4096` -> (1, 64, 4096)."""
    words = [word.strip() for word in value.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise click.BadParameter(f"positive numbers with commas between; got '{value}'")
    return tuple(int(word) for word in words)
