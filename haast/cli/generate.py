"""`haast generate`: one prompt, one answer, streamed to the terminal; or a file of prompts."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haast.cli.once import OnceCommand
from haast.cli.options import (
    FILE,
    engine_options,
    max_batch_size,
    model_options,
    picked,
    sampling_options,
)
from haast.cli.prompts import answer_all, read_prompts
from haast.cli.report import byte_bar, console, describe_plan, print_table, print_warning, size
from haast.config import EngineConfig
from haast.engine.request import SamplingParams
from haast.engine.wake import importing, wake

if TYPE_CHECKING:
    from haast.llm import LLM
    from haast.result import Result

EFFORTS = ["low", "medium", "high"]
FAILED = 1
BATCH_SIZE = 64
"""With --prompts, if not given"""


@click.command(
    "generate",
    cls=OnceCommand,
    short_help="Answer one prompt, or a file of them, in the terminal.",
)
@click.option("--prompt", help="The user's message.")
@click.option(
    "--prompts",
    type=FILE,
    metavar="FILE.jsonl",
    help='File of many: each line is a JSON string, {"prompt": "..."} or {"messages": [...]}. '
    "Prints one JSON line an answer, in the same order.",
)
@model_options
@max_batch_size(None, f"1; {BATCH_SIZE} with --prompts")
@engine_options
@click.option(
    "--chat-template",
    type=FILE,
    help="Jinja file, or JSON that holds one, to render the prompt with instead of harmony.",
)
@sampling_options
@click.option(
    "--reasoning-effort",
    type=click.Choice(EFFORTS, case_sensitive=False),
    default="medium",
    show_default=True,
)
@click.option("--conversation-date", metavar="YYYY-MM-DD", help="Date to tell the model.")
@click.option("--show-reasoning", is_flag=True, help="Print the analysis channel too, dimmed.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of text, no figures."
)
@click.option("--pretty-print-config", is_flag=True, help="Print configuration and plan first.")
def command(prompt: str | None, prompts: Path | None, **options: Any) -> None:
    """Answer PROMPT with a gpt-oss model and print only the answer; figures go to stderr."""
    if prompt is not None and prompts is not None:
        raise click.UsageError("--prompt and --prompts exclude each other")
    if prompt is None and prompts is None and not options["pretty_print_config"]:
        raise click.UsageError("--prompt is missing: what should the model answer?")
    if options["max_batch_size"] is None:
        options["max_batch_size"] = 1 if prompts is None else BATCH_SIZE
    config = picked(EngineConfig, options)
    params = picked(SamplingParams, options)
    asked = None if prompts is None else read_prompts(prompts)
    if prompt is None and asked is None:
        _print_plan(config)
        return
    llm = _load(config, quiet=options["as_json"])
    if options["pretty_print_config"]:
        click.echo(describe_plan(config, llm.plan), err=True)
    chat = {name: options[name] for name in ("reasoning_effort", "conversation_date")}
    results: list[Result] = []
    if asked is not None:
        results = answer_all(llm, asked, params, chat, quiet=options["as_json"])
    elif prompt is not None:
        results = [_answer(llm, prompt, params, options, chat)]
    _exit_if_failed(results)


def _answer(
    llm: "LLM", prompt: str, params: SamplingParams, options: dict[str, Any], chat: dict[str, Any]
) -> "Result":
    if options["as_json"]:
        result = llm.generate(prompt, params, **chat)[0]
        click.echo(json.dumps(_document(llm, result), ensure_ascii=False))
    else:
        result = _stream(llm, prompt, params, options["show_reasoning"], chat)
        _print_figures(llm, result)
    return result


def _exit_if_failed(results: "list[Result]") -> None:
    """Exit code 1, and one line that says why, if the device failed amid an answer."""
    errors = [result.error for result in results if result.error is not None]
    if errors:
        click.echo(f"haast: {len(errors)} of {len(results)} answers failed: {errors[0]}", err=True)
        sys.exit(FAILED)


def _print_plan(config: EngineConfig) -> None:
    """The plan alone needs no weights."""
    from haast.engine.load import prepare

    plan = prepare(config).plan
    click.echo(describe_plan(config, plan), err=True)
    print_warning(plan.warning)


def _load(config: EngineConfig, quiet: bool) -> "LLM":
    """The model, loaded with a progress bar; says which one unless `quiet`."""
    wake(config.devices)
    with importing():
        from haast.llm import LLM

    with byte_bar("loading") as progress:
        llm = LLM(progress=progress, **vars(config))
    if not quiet:
        bundled = " (bundled; --model-path names another)" if config.model_path is None else ""
        console().print(f"model: {llm.found}{bundled}", style="dim", markup=False)
    print_warning(llm.plan.warning)
    return llm


def _stream(
    llm: "LLM", prompt: str, params: SamplingParams, show_reasoning: bool, chat: dict[str, Any]
) -> "Result":
    """Print the answer as it comes; reasoning before it if wanted."""
    from haast.result import Result

    shown = ("content", "reasoning") if show_reasoning else ("content",)
    printed = ""
    for delta in llm.stream(prompt, params, **chat):
        if isinstance(delta, Result):
            click.echo()
            _warn_if_empty(delta)
            return delta
        if delta.kind not in shown:
            continue
        if printed and printed != delta.kind:
            click.echo("\n")
        printed = delta.kind
        # click drops the styling where standard output is not a terminal
        is_thought = delta.kind == "reasoning"
        click.echo(click.style(delta.text, dim=True) if is_thought else delta.text, nl=False)
        sys.stdout.flush()
    raise AssertionError("a stream ends with its Result")


def _warn_if_empty(result: "Result") -> None:
    """An empty answer needs its reason."""
    if result.text or result.error is not None:
        return
    why = f"{len(result.token_ids)} tokens, finish reason {result.finish_reason}"
    hint = "; the reasoning used them up, raise --max-new-tokens" if result.reasoning else ""
    click.echo(f"haast: the model gave no answer ({why}{hint})", err=True)


def _figures(llm: "LLM", result: "Result") -> dict[str, Any]:
    from haast.engine.device import peak_memory

    timings = result.timings
    return {
        "load_s": llm.load_s,
        "ttft_s": timings.ttft_s,
        "prompt_tokens": timings.prompt_tokens,
        "prompt_tokens_per_s": timings.prompt_tokens_per_s,
        "generated_tokens": timings.generated_tokens,
        "decode_tokens_per_s": timings.decode_tokens_per_s,
        "total_s": timings.total_s,
        "peak_memory_bytes": peak_memory(llm.device),
    }


def _print_figures(llm: "LLM", result: "Result") -> None:
    figures = _figures(llm, result)
    speed = figures["decode_tokens_per_s"]
    rows = [
        ("load time", f"{figures['load_s']:.2f} s"),
        ("time to first token", f"{figures['ttft_s'] * 1e3:.0f} ms"),
        ("prompt tokens", str(figures["prompt_tokens"])),
        ("prompt speed", f"{figures['prompt_tokens_per_s']:.0f} tokens/s"),
        ("generated tokens", str(figures["generated_tokens"])),
        ("decode speed", f"{speed:.1f} tokens/s" if speed else "-"),
        ("peak memory", size(figures["peak_memory_bytes"])),
    ]
    if llm.engine.drafter is not None:
        counts = llm.engine.drafter.counts
        rows.append(("guessed tokens", f"{counts.accepted} right of {counts.tokens}"))
    print_table(rows)


def _document(llm: "LLM", result: "Result") -> dict[str, Any]:
    plan = asdict(llm.plan)
    plan["model_path"] = str(llm.plan.model_path)
    return {
        "text": result.text,
        "reasoning": result.reasoning,
        "finish_reason": result.finish_reason,
        "token_ids": result.token_ids,
        "tool_calls": [asdict(call) for call in result.tool_calls],
        "anomalies": result.anomalies,
        "error": result.error,
        "cached_tokens": result.cached_tokens,
        "timings": _figures(llm, result),
        "plan": plan,
    }
