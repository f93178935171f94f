"""`haast bench`: speed of kernels, against ceilings measured in the same run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haast.cli import bench_agree, bench_compare, bench_cpu, bench_model, bench_serve, bench_start
from haast.cli.options import FILE, cache_format_option
from haast.cli.results import OUT, finish
from haast.cli.shapes import model_option, numbers_option, tokens_option

if TYPE_CHECKING:
    from haast.bench.rooflines import Ceilings

SIZES = ",".join(str(2**i) for i in range(14))


@click.group("bench", short_help="Measure the speed of kernels.")
def command() -> None:
    """Measure kernels on a Hopper GPU. The last line of the output is one JSON document."""


@command.command("grouped", short_help="One ragged grouped matmul, MXFP4 against BF16.")
@click.option("--P", "P", type=click.IntRange(1), default=4096, show_default=True, help="Rows.")
@click.option("--K", "K", type=click.IntRange(1), default=2880, show_default=True)
@click.option("--N", "N", type=click.IntRange(1), default=256, show_default=True)
@click.option(
    "--which",
    type=click.Choice(["gate_up", "down"]),
    default="gate_up",
    show_default=True,
    help="The projection to file the result under; the shape is P, K, N either way.",
)
@click.option("--experts", type=click.IntRange(1), default=32, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--warmup", type=click.IntRange(0), default=20, show_default=True)
@click.option("--iters", type=click.IntRange(1), default=100, show_default=True)
@OUT
def grouped(out: Path | None, **options: Any) -> None:
    """P rows, spread over the experts at random, times [N, K] weights: MXFP4, then torch's BF16
    grouped matmul on the same weights. Warm-up and iterations are replays of a CUDA graph."""
    from haast.bench.grouped import Grouped, measure
    from haast.bench.machine import document
    from haast.bench.report import ceiling_line, grouped_lines

    l2_bytes, ceilings = _start()
    result = measure(Grouped(**options), l2_bytes, ceilings)
    click.echo("\n".join([*grouped_lines(result), ceiling_line(ceilings)]))
    finish(document("grouped", ceilings=vars(ceilings), **result), out)


@command.command("moe", short_help="The expert layer over numbers of tokens.")
@model_option
@tokens_option(SIZES)
@click.option(
    "--routing",
    "popularity",
    type=click.Choice(["uniform", "skewed"]),
    default="uniform",
    show_default=True,
    help="Experts of a token: any alike, or by Zipf's law with a few hot ones.",
)
@click.option("--against", type=click.Choice(["triton_kernels"]), help="Time this rival too.")
@click.option(
    "--iters", "replays", type=click.IntRange(1), default=50, show_default=True, help="Replays."
)
@click.option(
    "--plot", type=FILE, metavar="FILE.png", help="Draw the roofline: .png, .svg or .pdf."
)
@OUT
def moe(against: str | None, plot: Path | None, out: Path | None, **options: Any) -> None:
    """moe_up, moe_down and route over numbers of tokens, with floor, BF16 and maybe a rival.

    Weights rotate over copies so that none is found in the L2 cache. The floor is the larger of
    bytes over the read ceiling and FLOP over the matmul ceiling, added over the two matmuls.
    """
    from haast.bench.cases import read_config
    from haast.bench.machine import document
    from haast.bench.moe import Sweep, measure
    from haast.bench.plot import check_plot, roofline
    from haast.bench.report import ceiling_line, heading, points, row_line

    if plot is not None:
        check_plot(plot)
    config = read_config(options["model"])
    sweep = Sweep(config=config, with_rival=against is not None, **options)
    l2_bytes, ceilings = _start()
    click.echo(f"{sweep.model}, {sweep.popularity} routing; {ceiling_line(ceilings)}")
    click.echo(heading(sweep.with_rival))
    rows = []
    for row in measure(sweep, l2_bytes, ceilings):
        rows.append(row)
        click.echo(row_line(row, sweep.with_rival))
    result = document(
        "moe",
        model=sweep.model,
        routing=sweep.popularity,
        against=against,
        ceilings=vars(ceilings),
        rows=rows,
    )
    if plot is not None:
        title = f"Expert layer of {sweep.model} on {result['gpu']}, {sweep.popularity} routing"
        roofline(title, ceilings, points(rows)).savefig(plot)
    finish(result, out)


@command.command("ops", short_help="Any op that has kernels.")
@model_option
@tokens_option("1,64,256")
@click.option(
    "--op", "names", multiple=True, help="Only this op; may be given again. Default: all."
)
@click.option(
    "--iters", "replays", type=click.IntRange(1), default=20, show_default=True, help="Replays."
)
@OUT
def ops(
    model: str, tokens: tuple[int, ...], names: tuple[str, ...], replays: int, out: Path | None
) -> None:
    """Time of one call of each op and the CUDA kernels it launches, replayed in a graph."""
    from haast.bench.cases import read_config
    from haast.bench.machine import document, l2_bytes, one_line
    from haast.bench.ops import measure
    from haast.bench.tables import find_ops

    config = read_config(model)
    rows = []
    with one_line():
        for row in measure(find_ops(names), config, tokens, replays, l2_bytes()):
            rows.append(row)
            launched = " -> ".join(row["symbols"])
            click.echo(f"{row['op']:15} {row['tokens']:6} tokens {row['us']:9.2f} us  {launched}")
    finish(document("ops", model=model, rows=rows), out)


@command.command("head", short_help="The language-model head, with and without its shadow.")
@model_option
@tokens_option("1,2,4,8,16")
@click.option(
    "--top-k", type=click.IntRange(1), default=50, show_default=True, help="Of rows not greedy."
)
@click.option(
    "--iters", "replays", type=click.IntRange(1), default=20, show_default=True, help="Replays."
)
@OUT
def head(model: str, out: Path | None, **options: Any) -> None:
    """Microseconds of the whole head and of the one with a shadow, alone and with the draw of
    tokens, and how many rows of the weight the latter computes. Logits are normal."""
    from haast.bench.cases import read_config
    from haast.bench.head import HEADING, Sweep, measure, row_line
    from haast.bench.machine import document

    sweep = Sweep(config=read_config(model), **options)
    click.echo(HEADING)
    rows = []
    for row in measure(sweep):
        rows.append(row)
        click.echo(row_line(row))
    shadow = f"{rows[0]['shadow_bytes'] / 1e6:.0f} MB, made in {rows[0]['shadow_s']:.3f} s"
    click.echo(f"the shadow takes {shadow}")
    finish(document("head", model=model, rows=rows), out)


@command.command("attention", short_help="Attention over batches, contexts and prompts.")
@model_option
@numbers_option("--batches", "1,8,64,256", "Requests of a decode step, with commas between.")
@numbers_option("--contexts", "1024,4096,16384", "Keys that each of them has.")
@numbers_option("--prompts", "1024,2048,4096,8192,16384,32768", "Lengths of a prompt read at once.")
@cache_format_option("cache_format")
@click.option(
    "--iters", "replays", type=click.IntRange(1), default=20, show_default=True, help="Replays."
)
@OUT
def attention(model: str, out: Path | None, **options: Any) -> None:
    """Decode steps and prompts, of full-attention and sliding layers, with their floors.

    Caches of decode steps rotate so that none is found in the L2 cache. The floor is the larger of
    bytes over the read ceiling and FLOP over the matmul ceiling; masked scores are no FLOP.
    """
    from haast.bench.attention import HEADING, Sweep, measure, row_line
    from haast.bench.cases import read_config
    from haast.bench.machine import document
    from haast.bench.report import ceiling_line

    sweep = Sweep(config=read_config(model), **options)
    l2_bytes, ceilings = _start()
    click.echo(f"{model}; {ceiling_line(ceilings)}")
    click.echo(HEADING)
    rows = []
    for row in measure(sweep, l2_bytes, ceilings):
        rows.append(row)
        click.echo(row_line(row))
    written = {"cache_format": options["cache_format"], "rows": rows}
    finish(document("attention", model=model, ceilings=vars(ceilings), **written), out)


def _start() -> tuple[int, "Ceilings"]:
    """Size of the L2 cache, and ceilings."""
    from haast.bench.machine import l2_bytes
    from haast.bench.rooflines import measure_ceilings

    return l2_bytes(), measure_ceilings()


for other in (
    bench_agree.agree,
    bench_compare.compare,
    bench_cpu.cpu_decode,
    *bench_model.COMMANDS,
    bench_serve.serve,
    bench_start.start,
):
    command.add_command(other)
