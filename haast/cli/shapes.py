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


def numbers_option(name: str, default: str, text: str) -> Callable[[F], F]:
    """An option that takes positive numbers with commas between."""
    return click.option(
        name,
        metavar="N,N,...",
        default=default,
        show_default=True,
        callback=_numbers,
        help=text,
    )


def tokens_option(default: str) -> Callable[[F], F]:
    return numbers_option("--tokens", default, "Tokens of a step, with commas between.")


def _numbers(_ctx: click.Context, _option: click.Parameter, value: str) -> tuple[int, ...]:
    """`1,64,4096` -> (1, 64, 4096)."""
    words = [word.strip() for word in value.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise click.BadParameter(f"positive numbers with commas between; got '{value}'")
    return tuple(int(word) for word in words)
