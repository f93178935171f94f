"""`haast bench agree`: the greedy tokens of two ways to run a model."""

import json
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haast.cli.options import F, max_batch_size, model_options, picked
from haast.cli.results import OUT, finish
from haast.config import EngineConfig

if TYPE_CHECKING:
    from haast.bench.agreement import Way

DIFFERENT = 1
PIN = "pin."
SHOWN = 20
"""Differences that are printed"""
positive = click.IntRange(1)


def _way_option(name: str, text: str) -> Callable[[F], F]:
    return click.option(
        name,
        multiple=True,
        metavar="FIELD=VALUE",
        help=f"{text}: a field of EngineConfig, or pin.OP=IMPLEMENTATION; repeatable.",
    )


@click.command("agree", short_help="Whether two ways to run a model give the same tokens.")
@model_options
@max_batch_size(default=8)
@_way_option("--reference", "What the reference has of its own")
@_way_option("--other", "What the other way has of its own")
@click.option("--prompts", "num_prompts", type=positive, default=1000, show_default=True)
@click.option(
    "--input", "input_len", type=positive, default=128, show_default=True, help="Longest prompt."
)
@click.option("--output", "output_len", type=positive, default=64, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--spacings",
    type=float,
    default=1.0,
    show_default=True,
    help="Of bf16, between the reference's logits of both tokens, up to which they are a near-tie.",
)
@OUT
def agree(
    reference: tuple[str, ...],
    other: tuple[str, ...],
    num_prompts: int,
    input_len: int,
    output_len: int,
    out: Path | None,
    **options: Any,
) -> None:
    """Greedy answers to random prompts, one way after the other; exit code 0 = the same tokens
    except at near-ties of the reference."""
    from haast.bench.agreement import compare, prompts_of, summary
    from haast.bench.checkout import commit
    from haast.engine.load import prepare

    seed, spacings = options.pop("seed"), options.pop("spacings")
    base = {"max_length": input_len + output_len, "enable_prefix_caching": False}
    base |= {name: value for name, value in options.items() if value is not None}
    ways = [_way(base, given) for given in (reference, other)]
    vocab_size = prepare(ways[0].wishes).config.vocab_size
    prompts = prompts_of(num_prompts, input_len, vocab_size, seed)
    result = summary(compare(ways[0], ways[1], prompts, output_len), num_prompts, spacings)
    for difference in result["differences"][:SHOWN]:
        click.echo(
            "prompt {prompt}, token {position}: {token_ids}, margin {margin:.4g} = "
            "{spacings:.2f} spacings".format(**difference)
        )
    click.echo(
        f"{num_prompts} prompts x {output_len} tokens: {result['equal']} equal, "
        f"{result['near_ties']} part at near-ties, {result['different']} differ; "
        f"margins up to {result['most_spacings']:.2f} spacings of bf16"
    )
    when = {"bench": "agree", "date": date.today().isoformat(), "commit": commit()}
    what = {"reference": reference, "other": other, "output": output_len, "spacings": spacings}
    what |= {"model": str(base["model_path"]) if "model_path" in base else None}
    finish(when | what | result, out)
    sys.exit(DIFFERENT if result["different"] else 0)


def _way(base: dict[str, Any], given: tuple[str, ...]) -> "Way":
    """`deterministic=true`, `pin.moe_up=cuda_mma` -> wishes and pins on top of the common ones."""
    from haast.bench.agreement import Way

    wishes, pins = dict(base), {}
    for text in given:
        name, sign, value = text.partition("=")
        if name.startswith(PIN) and sign:
            pins[name.removeprefix(PIN)] = value
        elif name in EngineConfig.__dataclass_fields__ and sign:
            wishes[name] = _value(value)
        else:
            raise click.UsageError(f"'{text}' is neither FIELD=VALUE nor pin.OP=IMPLEMENTATION")
    return Way(picked(EngineConfig, wishes), pins)


def _value(text: str) -> Any:
    """JSON where it is that, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
