"""`haast bench serve`: load on a server that speaks OpenAI's API, haast or another."""

import secrets
import sys
from pathlib import Path
from typing import Any

import click

from haast.cli.options import FILE, picked
from haast.cli.report import count_bar, print_warning
from haast.cli.results import OUT, finish
from haast.cli.shapes import numbers_option

FAILED = 1
BAR_HZ = 1
"""Drawing holds the interpreter for milliseconds, which tokens that arrive must not wait"""
positive = click.IntRange(1)


@click.command("serve", short_help="A server over HTTP, at some numbers of requests at once.")
@click.option(
    "--base-url",
    default="http://localhost:8000",
    show_default=True,
    help="The server, with or without /v1.",
)
@numbers_option("--concurrency", "1,8,64,256", "Requests at a time, with commas between.")
@click.option("--input", "input_len", type=positive, default=1024, show_default=True)
@click.option("--output", "output_len", type=positive, default=128, show_default=True)
@click.option(
    "--requests",
    "num_requests",
    type=positive,
    help="Requests of each level. Default: 4 for each at a time, at least 8.",
)
@click.option(
    "--warmup",
    "num_warmup",
    type=click.IntRange(0),
    help="Requests before each level that do not count. Default: as many as at a time.",
)
@click.option(
    "--endpoint",
    type=click.Choice(["completions", "chat"]),
    default="completions",
    show_default=True,
    help="completions sends token ids; chat sends words, whose number of tokens is not exact.",
)
@click.option("--model", help="Default: the first that the server names.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="Default: $OPENAI_API_KEY.")
@click.option("--temperature", type=float, default=1.0, show_default=True)
@click.option(
    "--vocab-size",
    type=positive,
    default=199_998,
    show_default=True,
    help="Prompts are token ids below this one; gpt-oss's are text up to here.",
)
@click.option("--seed", type=int, help="Of the prompts. Default: another one each time.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds that a request may take.",
)
@click.option(
    "--plot", type=FILE, metavar="FILE.svg", help="Draw speed and latency: .png, .svg or .pdf."
)
@OUT
def serve(
    base_url: str,
    api_key: str | None,
    plot: Path | None,
    out: Path | None,
    **options: Any,
) -> None:
    """Stream answers of a fixed length from any server with OpenAI's API: how fast the first
    token comes, the next ones, the whole, and how many a second.

    As many requests as the level says are under way all the time. Every prompt is new, drawn from
    the seed, so that no prefix cache helps; `cached_tokens` tells if one did. Tokens are counted
    by the usage that the server tells, latency by the events that come; several tokens may share
    an event, and the table says how many do.
    """
    from haast.bench.load.about import about, served_model
    from haast.bench.load.plot import check_plot, draw
    from haast.bench.load.prompts import Requests
    from haast.bench.load.rows import HEADING, SATURATED_PERCENT, row_line
    from haast.bench.load.sweep import Sweep, measure
    from haast.bench.load.target import parse_url

    if plot is not None:
        check_plot(plot)
    target = parse_url(base_url, api_key)
    options["model"] = options["model"] or served_model(target)
    options["seed"] = secrets.randbits(32) if options["seed"] is None else options["seed"]
    requests, sweep = picked(Requests, options), picked(Sweep, options)
    result = about(target, requests)
    click.echo(
        f"{target}: {requests.model}, {options['input_len']} tokens in, {options['output_len']} out"
    )
    click.echo(HEADING)
    rows = []
    for row in measure(target, requests, sweep, lambda what: count_bar(what, BAR_HZ)):
        rows.append(row)
        click.echo(row_line(row))
        if row["client_cpu_percent"] > SATURATED_PERCENT:
            print_warning("the client needs most of a core here; it may be what is slow")
    result["rows"] = rows
    if plot is not None:
        draw(result).savefig(plot)
    finish(result, out)
    if any(row["errors"] for row in rows):
        sys.exit(FAILED)
