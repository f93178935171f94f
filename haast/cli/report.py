"""What commands show beside their results: progress, plans, tables. All on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from haast.config import EngineConfig, Plan

Callback = Callable[[int, int], None]


def console() -> Console:
    """Standard error, without wrapping where it is not a terminal."""
    found = Console(stderr=True, highlight=False)
    return found if found.is_terminal else Console(stderr=True, highlight=False, width=10_000)


@contextmanager
def byte_bar(label: str) -> Iterator[Callback]:
    """A progress bar for callback(bytes done, bytes in all); silent if not on a terminal."""
    with _bar(label, DownloadColumn(), TransferSpeedColumn()) as callback:
        yield callback


@contextmanager
def count_bar(label: str, hz: float = 10) -> Iterator[Callback]:
    """A progress bar for callback(done, in all), drawn `hz` times a second by a thread; silent if
    not on a terminal."""
    with _bar(label, MofNCompleteColumn(), TimeElapsedColumn(), hz=hz) as callback:
        yield callback


@contextmanager
def _bar(label: str, *columns: ProgressColumn, hz: float = 10) -> Iterator[Callback]:
    screen = console()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        console=screen,
        transient=True,
        refresh_per_second=hz,
        disable=not screen.is_terminal,
        redirect_stdout=False,  # results are for whoever reads them, not for this screen
    )
    with bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_table(rows: list[tuple[str, str]]) -> None:
    """Two columns: what, and how much."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    Console(stderr=True, highlight=False).print(table)


def print_warning(text: str | None) -> None:
    """One line that nobody asked for, if there is anything to warn of."""
    if text is not None:
        click.echo(f"haast: warning: {text}", err=True)


def describe_plan(config: EngineConfig, plan: Plan, server: dict[str, Any] | None = None) -> str:
    """The whole effective configuration, one `name: value` a line, grouped.

    server  how it listens and answers, if it serves
    """
    memory = plan.memory
    decided: dict[str, Any] = {
        "model": plan.model_path,
        "architecture": plan.architecture,
        "layout": plan.layout,
        "files": ", ".join(plan.files) or "none",
        "encoding": plan.encoding,
        "experts": _expert_order(plan),
        "device": plan.device,
        "max_length": plan.max_length,
        "max_batch_size": plan.max_batch_size,
        "language-model head": "whole, or by an 8-bit shadow where tokens are the same"
        if plan.has_shadow_head
        else "whole",
        "guesses": _guesses(plan),
        "CUDA graphs": "of decode steps, captured when first needed" if plan.has_graphs else "none",
    }
    pages = f"{memory.num_pages} + {memory.num_window_pages} pages of {memory.page_size}"
    sizes = {
        "usable": size(memory.available_bytes),
        "weights": size(memory.weight_bytes),
        "workspace": f"{size(memory.workspace_bytes)} for a step and graphs",
        "kv cache": f"{size(memory.kv_bytes)} in {pages} (full + sliding layers)",
        "without sliding": f"{size(memory.naive_kv_bytes)} if sliding layers kept every position",
        "kv format": memory.cache_format,
        "kv tokens": memory.kv_tokens,
        "full-length requests": memory.num_full_length,
    }
    ops = {c.op: f"{c.implementation or 'kernels'} ({c.because})" for c in plan.ops}
    sections = {"configuration": asdict(config), "plan": decided}
    sections |= {"ranks": _ranks(plan)} if plan.ranks else {}
    sections |= {"memory of each rank" if plan.ranks else "memory": sizes, "ops": ops}
    sections |= {"server": server} if server else {}
    return "\n".join(_section(title, rows) for title, rows in sections.items())


def _guesses(plan: Plan) -> str:
    config = plan.speculative_config
    if config is None:
        return "none"
    shortest, longest = config.lookup
    count = f"up to {config.num_speculative_tokens} tokens at a time, {plan.max_drafts} a step"
    return f"{count}, by n-grams of {shortest} to {longest}"


def _ranks(plan: Plan) -> dict[str, str]:
    """What each of them has."""
    return {
        f"{number}": f"{rank.device}: {rank.num_heads} query and {rank.num_kv_heads} key-value "
        f"heads, {rank.intermediate_size} of every expert, {rank.num_tokens} tokens of the head, "
        f"{size(rank.weight_bytes)} of weights"
        for number, rank in enumerate(plan.ranks)
    }


def _expert_order(plan: Plan) -> str:
    if plan.encoding == "bfloat16":
        return "dense"
    return "bytes swizzled for kernels" if plan.is_swizzled else "bytes in checkpoint order"


def _section(title: str, rows: dict[str, Any]) -> str:
    width = max(map(len, rows))
    return "\n".join([f"{title}:", *(f"  {name:{width}}  {value}" for name, value in rows.items())])


def size(nbytes: int) -> str:
    """Bytes for people, in powers of ten."""
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"
