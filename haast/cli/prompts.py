"""`haast generate --prompts`: a file of prompts in, a JSON line an answer out."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from haast.cli.report import count_bar, print_table
from haast.engine.request import SamplingParams
from haast.errors import HaastError

if TYPE_CHECKING:
    from haast.llm import LLM
    from haast.result import Result

KINDS = 'a JSON string, {"prompt": "..."} or {"messages": [...]}'


class PromptFileError(HaastError):
    """A file of prompts that cannot be read; names the file, and the line if it is one's fault."""


class Asked(NamedTuple):
    """A prompt of a file, and where it stands there: `FILE, line N`."""

    where: str
    prompt: str | list[dict[str, Any]]


def read_prompts(path: Path) -> list[Asked]:
    """The prompts of a file, one a line; empty lines are passed over.

    Raises PromptFileError.
    """
    try:
        lines = path.read_bytes().decode().split("\n")
    except OSError as error:
        raise PromptFileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise PromptFileError(f"{path}, line {number}: not UTF-8") from None
    asked = []
    for number, text in enumerate(lines, start=1):
        if text.strip():
            where = f"{path}, line {number}"
            asked.append(Asked(where, _prompt(where, text)))
    if not asked:
        raise PromptFileError(f"{path}: holds no prompts")
    return asked


def _prompt(where: str, line: str) -> str | list[dict[str, Any]]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        why = f"not JSON ({error.msg} at character {error.colno})"
        raise PromptFileError(f"{where}: {why}; must be {KINDS}") from None
    except (ValueError, RecursionError):
        raise PromptFileError(f"{where}: too large a number or too deep; must be {KINDS}") from None
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and len(value) == 1:
        prompt, messages = value.get("prompt"), value.get("messages")
        if isinstance(prompt, str):
            return prompt
        if isinstance(messages, list) and all(isinstance(entry, dict) for entry in messages):
            return messages
    raise PromptFileError(f"{where}: must be {KINDS}; got {_shortened(line.strip())}")


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def answer_all(
    llm: "LLM",
    asked: list[Asked],
    params: SamplingParams,
    chat: dict[str, Any],
    *,
    quiet: bool,
) -> list["Result"]:
    """Print each answer as one line of JSON, in order, as soon as those before are there.

    quiet  no figures on standard error afterwards
    Raises PromptFileError before anything runs if a prompt is malformed or too long.
    """
    prompts = [_checked(llm, one, params, chat) for one in asked]
    started = perf_counter()
    results = []
    with count_bar("answering") as bar:
        progress = lambda done: bar(done, len(prompts))
        for index, result in enumerate(llm.answers(prompts, params, progress=progress, **chat)):
            click.echo(json.dumps(_document(index, result), ensure_ascii=False))
            sys.stdout.flush()
            results.append(result)
    if not quiet:
        print_table(list(_figures(results, perf_counter() - started)))
    return results


def _checked(llm: "LLM", one: Asked, params: SamplingParams, chat: dict[str, Any]) -> list[int]:
    """Token ids of a prompt."""
    try:
        return llm.prompt_ids(one.prompt, params, **chat)
    except HaastError as error:
        raise PromptFileError(f"{one.where}: {error}") from None


def _document(index: int, result: "Result") -> dict[str, Any]:
    return {
        "index": index,
        "text": result.text,
        "reasoning": result.reasoning,
        "finish_reason": result.finish_reason,
        "error": result.error,
        "prompt_tokens": len(result.prompt_token_ids),
        "generated_tokens": len(result.token_ids),
        "cached_tokens": result.cached_tokens,
    }


def _figures(results: list["Result"], wall_s: float) -> Iterator[tuple[str, str]]:
    num_prompt = sum(len(result.prompt_token_ids) for result in results)
    num_generated = sum(len(result.token_ids) for result in results)
    yield "requests", str(len(results))
    yield "prompt tokens", str(num_prompt)
    yield "prompt speed", f"{num_prompt / wall_s:.0f} tokens/s"
    yield "generated tokens", str(num_generated)
    yield "output speed", f"{num_generated / wall_s:.0f} tokens/s"
    yield "wall time", f"{wall_s:.2f} s"
