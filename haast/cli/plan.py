"""`haast plan`: how many requests so many GPUs can serve."""

import re
from textwrap import fill
from typing import Any

import click

from haast.cli.once import OnceCommand


class _Gpus(click.ParamType[tuple[int, str]]):
    """8xH100 -> (8, "H100")."""

    name = "NxKIND"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, str]:
        match = re.fullmatch(r"([1-9][0-9]{0,3})x(H100|H200)", value)
        if match is None:
            self.fail(f"{value!r} is not like 8xH100; kinds are H100, H200", param, ctx)
        return int(match[1]), match[2]


@click.command("plan", cls=OnceCommand, short_help="How many requests so many GPUs can serve.")
@click.option(
    "--model",
    type=click.Choice(["gpt-oss-20b", "gpt-oss-120b"]),
    default="gpt-oss-20b",
    show_default=True,
)
@click.option("--gpus", type=_Gpus(), default="1xH100", show_default=True)
@click.option(
    "--qps", type=click.FloatRange(0, min_open=True), required=True, help="Requests a second."
)
@click.option("--input", "num_input", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--output", "num_output", type=click.IntRange(1), default=500, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the times they come at.")
def command(
    model: str,
    gpus: tuple[int, str],
    qps: float,
    num_input: int,
    num_output: int,
    seed: int,
) -> None:
    """Simulate every way to divide GPUs between replicas, from measured curves of one GPU.

    Requests of so many tokens in and out come at random times. Needs no GPU.
    """
    from haast.capacity.choices import Load
    from haast.capacity.report import HEADER, computed, lines, row, trust

    count, kind = gpus
    load = Load(qps, num_input, num_output, seed)
    found = computed(model, kind, count, load)
    click.echo(
        f"{model} on {count} {kind}, {qps:g} requests/s of {num_input} + {num_output} tokens"
    )
    click.echo()
    for line in lines([HEADER, *(row(choice, load) for choice in found)]):
        click.echo(line)
    for choice in found:
        if choice.why_not:
            click.echo(f"\n{choice.num_gpus} a replica: {choice.why_not}")
    for text in trust(model, kind, found):
        click.echo("\n" + fill(text, 100))
