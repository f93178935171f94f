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
@_way_option(
    "--control", "What a third way has of its own that is known good: how much such ways part"
)
@click.option("--prompts", "num_prompts", type=positive, default=1000, show_default=True)
@click.option(
    "--prompts-of",
    type=click.Choice(["coherence", "random"]),
    help="coherence: chats in the model's own tongue, made of its coherence.json, and answers end "
    "as it wants; random: any token ids, on which a trained model's router stands at near-ties. "
    "Default: coherence where the model has that file and its own weights, as haast-tiny.",
)
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
    control: tuple[str, ...],
    input_len: int,
    output_len: int,
    out: Path | None,
    **options: Any,
) -> None:
    """Greedy answers to the same prompts, one way after the other; exit code 0 = the same tokens
    except at near-ties of the reference, or no more differences than the control's."""
    from haast.bench.agreement import compare, summary, table_lines
    from haast.bench.checkout import commit

    spacings = options.pop("spacings")
    drawn = {name: options.pop(name) for name in ("prompts_of", "num_prompts", "seed")}
    base = {"max_length": input_len + output_len, "enable_prefix_caching": False}
    base |= {name: value for name, value in options.items() if value is not None}
    names = ("other", "control") if control else ("other",)
    first, *others = [_way(base, given) for given in (reference, other, control)][: 1 + len(names)]
    kind, prompts, stop_ids = _prompts(first.wishes, input_len, **drawn)
    found = compare(first, others, prompts, output_len, stop_ids)
    rows = {
        name: summary(differences, len(prompts), spacings)
        for name, differences in zip(names, found, strict=True)
    }
    for difference in rows["other"]["differences"][:SHOWN]:
        click.echo(
            "prompt {prompt}, token {position}: {token_ids}, margin {margin:.4g} = "
            "{spacings:.2f} spacings".format(**difference)
        )
    click.echo("\n".join(table_lines(rows)))
    when = {"bench": "agree", "date": date.today().isoformat(), "commit": commit()}
    what = {"reference": reference, "other": other, "control": control, "output": output_len}
    how = {"prompts_of": kind, "seed": drawn["seed"], "spacings": spacings}
    how |= {"model": str(base["model_path"]) if "model_path" in base else None}
    finish(when | what | how | rows["other"] | {"of_control": rows.get("control")}, out)
    allowed = rows["control"]["different"] if control else 0
    sys.exit(DIFFERENT if rows["other"]["different"] > allowed else 0)


def _prompts(
    wishes: EngineConfig, longest: int, prompts_of: str | None, num_prompts: int, seed: int
) -> tuple[str, list[list[int]], frozenset[int]]:
    """Of what kind, the prompts, and the tokens that end an answer to one."""
    from haast.bench.agreement import random_prompts
    from haast.coherence.conversations import conversations
    from haast.coherence.suite import FILE, read_suite
    from haast.engine.load import prepare

    prepared = prepare(wishes)
    suite = None if wishes.load_format == "dummy" else read_suite(prepared.plan.model_path)
    if prompts_of == "random" or suite is None:
        if prompts_of == "coherence":
            raise click.UsageError(f"--prompts-of coherence: the model has no {FILE} of its own")
        vocab_size = prepared.config.vocab_size
        return "random", random_prompts(num_prompts, longest, vocab_size, seed), frozenset()
    return "coherence", *conversations(suite, prepared.tokenizer, num_prompts, longest, seed)


def _way(base: dict[str, Any], given: tuple[str, ...]) -> "Way":
    """`deterministic=true`, `pin.moe_up=cuda_mma` -> wishes and pins on top of the common ones."""
    from haast.bench.agreement import Way

    wishes, pins = dict(base), {}
    for text in given:
        name, sign, value = text.partition("=")
        if name.startswith(PIN) and sign:
            pins[name.removeprefix(PIN)] = value
        elif name in EngineConfig.__dataclass_fields__ and sign:
            wishes[name] = Path(value) if name == "model_path" else _value(value)
        else:
            raise click.UsageError(f"'{text}' is neither FIELD=VALUE nor pin.OP=IMPLEMENTATION")
    return Way(picked(EngineConfig, wishes), pins)


def _value(text: str) -> Any:
    """JSON where it is that, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
