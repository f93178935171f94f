"""`haast bench decode | prefill | throughput | guesses`: speed of a model under its engine."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haast.cli.options import FILE, model_options, shortlist_option
from haast.cli.results import OUT, finish
from haast.cli.shapes import model_option, numbers_option, tokens_option
from haast.cli.speculation import speculative_option
from haast.config import EngineConfig, SpeculativeConfig

if TYPE_CHECKING:
    from haast.bench.graph_experts import GraphExperts
    from haast.bench.rooflines import Ceilings
    from haast.bench.whole_model import Subject

positive = click.IntRange(1)


@click.command("decode", short_help="A model's decode steps at some batch sizes.")
@model_options
@shortlist_option
@numbers_option("--batch", "1,8,32,64,128,256", "Requests at a time, with commas between.")
@click.option("--input", "input_len", type=positive, default=1024, show_default=True)
@click.option("--output", "output_len", type=click.IntRange(16), default=128, show_default=True)
@click.option(
    "--trace",
    type=FILE,
    metavar="FILE.json",
    help="Then write one step of each batch as a Chrome trace, and print where its time goes.",
)
@OUT
def decode(
    batch: tuple[int, ...],
    input_len: int,
    output_len: int,
    trace: Path | None,
    out: Path | None,
    **options: Any,
) -> None:
    """Random prompts, read and then continued greedily. Speed counts steps in which every request
    got a token; the floor is their bytes or FLOP at the ceilings measured in the same run.

    With --trace the requests run once more under torch's profiler, which slows steps a little. A
    kernel's time there is from the latest end before it to its own, as kernels overlap."""
    from haast.bench.decode import HEADING, measure, row_line
    from haast.bench.graph_experts import graph_experts
    from haast.bench.trace import check_trace

    if trace is not None:
        check_trace(trace)
    length = input_len + output_len
    subject, ceilings = _load(options, max_batch_size=max(batch), max_length=length)
    click.echo(HEADING)
    sizes: dict[str, Any] = {"input": input_len, "output": output_len}
    with graph_experts(subject.loaded) as experts:
        sizes["rows"] = _shown(measure(subject, batch, input_len, output_len, ceilings), row_line)
        if trace is not None:
            lengths = (batch, input_len, output_len)
            sizes["traces"] = _traced(subject, lengths, experts, ceilings, trace)
    finish(_document("decode", options, subject, ceilings) | sizes, out)


def _traced(
    subject: "Subject",
    lengths: tuple[tuple[int, ...], int, int],
    experts: "GraphExperts",
    ceilings: "Ceilings",
    path: Path,
) -> list[dict[str, Any]]:
    """A table a batch, printed as soon as it is known, and all of them in a file.

    lengths  batch sizes, tokens of a prompt, tokens of an output
    """
    from haast.bench.timeline import table_lines
    from haast.bench.trace import trace, write_trace

    found = []
    rows = []
    for traced in trace(subject, *lengths, experts):
        found.append(traced)
        rows.append(traced.row(ceilings))
        click.echo("\n".join(["", traced.title, *table_lines(rows[-1])]))
    write_trace(path, found)
    click.echo(f"\nwrote {path}")
    return rows


@click.command("prefill", short_help="A model's time to first token.")
@model_options
@numbers_option("--input", "128,1024,8192", "Lengths of a prompt, with commas between.")
@OUT
def prefill(input: tuple[int, ...], out: Path | None, **options: Any) -> None:
    """One random prompt at a time, median of five, then 64 prompts of 1024 tokens at once."""
    from haast.bench.prefill import HEADING, MANY_LENGTH, MANY_TOKENS, measure, row_line

    longest = max(*input, MANY_LENGTH) + 1
    many = MANY_TOKENS // MANY_LENGTH
    subject, ceilings = _load(options, max_batch_size=many, max_length=longest)
    click.echo(HEADING)
    rows = _shown(measure(subject, input, ceilings), row_line)
    finish(_document("prefill", options, subject, ceilings) | {"rows": rows}, out)


@click.command("throughput", short_help="A mix of requests, all there at once.")
@model_options
@click.option("--requests", "count", type=positive, default=512, show_default=True)
@click.option("--batch", type=positive, default=256, show_default=True, help="At a time.")
@click.option("--input", "input_len", type=positive, help="Fixed prompt length, not a mix.")
@click.option("--output", "output_len", type=positive, help="Fixed output length, not a mix.")
@click.option("--seed", type=int, default=0, show_default=True)
@OUT
def throughput(
    count: int,
    batch: int,
    input_len: int | None,
    output_len: int | None,
    seed: int,
    out: Path | None,
    **options: Any,
) -> None:
    """Prompts and outputs of log-normal lengths like those of shared conversations, made from the
    seed; nothing may be lost."""
    from haast.bench.throughput import LONGEST, lengths, measure

    sizes = [(input_len or a, output_len or b) for a, b in lengths(count, seed)]
    longest = max(LONGEST, max(a + b for a, b in sizes))
    subject, ceilings = _load(options, max_batch_size=batch, max_length=longest)
    row = measure(subject, sizes)
    for name, value in row.items():
        click.echo(f"{name:24} {value:.1f}" if isinstance(value, float) else f"{name:24} {value}")
    finish(_document("throughput", options, subject, ceilings) | {"batch": batch} | row, out)


@click.command("guesses", short_help="What guessing next tokens wins and costs.")
@model_options
@numbers_option("--batch", "1,8,32", "Requests at a time, with commas between.")
@click.option("--input", "input_len", type=click.IntRange(40), default=1024, show_default=True)
@click.option("--output", "output_len", type=click.IntRange(16), default=512, show_default=True)
@speculative_option
@OUT
def guesses(
    batch: tuple[int, ...], input_len: int, output_len: int, out: Path | None, **options: Any
) -> None:
    """Decodes of texts that do or do not repeat themselves, without and with guesses in turns. The
    steps are real, but whatever they sample the tokens are those of the text."""
    from haast.bench.guesses import HEADING, measure, row_line

    options["speculative_config"] = options["speculative_config"] or SpeculativeConfig("ngram")
    length = input_len + output_len
    subject, ceilings = _load(options, max_batch_size=max(batch), max_length=length)
    click.echo(HEADING)
    rows = _shown(measure(subject, batch, input_len, output_len), row_line)
    sizes = {"input": input_len, "output": output_len}
    finish(_document("guesses", options, subject, ceilings) | sizes | {"rows": rows}, out)


@click.command("allreduce", short_help="Adding up rows over several GPUs.")
@model_option
@tokens_option("1,8,32,64,128,256,1024,8192")
@click.option("--devices", metavar="gpu:N,M,...", default="gpu:0,1", show_default=True)
@OUT
def allreduce(model: str, tokens: tuple[int, ...], devices: str, out: Path | None) -> None:
    """What every rank has of a layer's result is added up with the residual and normalised, twice
    a layer: by one kernel over peer memory, by NCCL and a kernel, and the kernel alone. Sums are
    compared with what they should be."""
    from haast.bench.allreduce import HEADING, measure, row_line
    from haast.bench.cases import read_config
    from haast.bench.machine import document, hopper

    hopper()
    click.echo(HEADING)
    rows = []
    for row in measure(devices, read_config(model).hidden_size, tokens):
        rows.append(row)
        click.echo(row_line(row))
    finish(document("allreduce", model=model, devices=devices, rows=rows), out)


COMMANDS = (decode, prefill, throughput, guesses, allreduce)


def _load(options: dict[str, Any], **wishes: Any) -> "tuple[Subject, Ceilings]":
    """The model, loaded without a prefix cache, and this GPU's ceilings."""
    from haast.bench.machine import hopper
    from haast.bench.rooflines import measure_ceilings
    from haast.bench.whole_model import load_subject
    from haast.cli.report import print_warning

    hopper()
    ceilings = measure_ceilings()
    given = {name: options[name] for name in EngineConfig.__dataclass_fields__ if options.get(name)}
    config = EngineConfig(**wishes | given, enable_prefix_caching=False)
    subject = load_subject(config)
    print_warning(subject.plan.warning)
    memory = subject.plan.memory
    click.echo(f"loaded in {subject.load_s:.2f} s; {memory.kv_tokens} KV tokens")
    return subject, ceilings


def _shown(rows: Iterable[dict[str, Any]], line: Any) -> list[dict[str, Any]]:
    """The rows, each printed as soon as it is known."""
    known = []
    for row in rows:
        known.append(row)
        click.echo(line(row))
    return known


def _document(
    name: str, options: dict[str, Any], subject: "Subject", ceilings: "Ceilings"
) -> dict[str, Any]:
    from haast.bench.machine import document

    return document(
        name,
        model=subject.plan.model_path.name,
        devices=subject.plan.device,
        load_format=options["load_format"],
        encoding=subject.plan.encoding,
        cache_format=subject.plan.memory.cache_format,
        has_shadow_head=subject.plan.has_shadow_head,
        load_s=subject.load_s,
        kv_bytes=subject.plan.memory.kv_bytes,
        ceilings=vars(ceilings),
    )
