"""`haast bench guesses`: what guessing next tokens wins and costs, on texts of known kinds."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

from haast.bench.whole_model import Subject
from haast.engine.engine import Engine
from haast.engine.request import Request, SamplingParams
from haast.engine.step import Pending, Step, StepResult

ROUNDS = 3
"""Timed ones, each without and with guesses; one before them has graphs captured"""
HEADING = "text        batch  plain tokens/s  guessing  times  drafts  guessed  right"
Text = list[int]


def fresh(draw: random.Random, vocab_size: int, prompt: Text, count: int) -> Text:
    """Tokens drawn anew: nothing to guess by."""
    return [draw.randrange(vocab_size) for _ in range(count)]


def few_words(draw: random.Random, vocab_size: int, prompt: Text, count: int) -> Text:
    """One of three tokens each: always something to guess by, and mostly wrong."""
    return [draw.choice(prompt[:3]) for _ in range(count)]


def quote(draw: random.Random, vocab_size: int, prompt: Text, count: int) -> Text:
    """Thirty tokens of the prompt, one of its own, and so on."""
    text: Text = []
    while len(text) < count:
        at = draw.randrange(max(1, len(prompt) - 30))
        text += [*prompt[at : at + 30], draw.randrange(vocab_size)]
    return text[:count]


def loop(draw: random.Random, vocab_size: int, prompt: Text, count: int) -> Text:
    """The same twenty tokens over and over."""
    return (prompt[:20] * count)[:count]


TEXTS = {"fresh": fresh, "few words": few_words, "quote": quote, "loop": loop}
Script = Callable[[Request, int], int]


@dataclass
class Scripted:
    """A launched step whose tokens are those of a script: its time alone is real."""

    pending: Pending
    asked: list[tuple[Request, int]]
    script: Script

    def wait(self) -> StepResult:
        self.pending.wait()
        return StepResult([self.script(request, position) for request, position in self.asked])

    def masks(self) -> memoryview:
        return self.pending.masks()

    def sample(self) -> None:
        self.pending.sample()


def measure(
    subject: Subject, batches: tuple[int, ...], input_len: int, output_len: int
) -> Iterator[dict[str, Any]]:
    """One row a text and batch size; decodes only, all of the same lengths."""
    for name in TEXTS:
        for batch in batches:
            draw = random.Random(batch)
            vocab_size = subject.config.vocab_size
            prompts = [fresh(draw, vocab_size, [], input_len) for _ in range(batch)]
            texts = [TEXTS[name](draw, vocab_size, prompt, output_len) for prompt in prompts]
            times: dict[bool, list[float]] = {False: [], True: []}
            counts = _counts(subject.loaded.engine)
            for timed in [False, *[True] * ROUNDS]:
                for guesses, measured in times.items():
                    took_s = _run(subject, prompts, texts, guesses)
                    measured += [took_s] if timed else []
            after = _counts(subject.loaded.engine)
            tokens = batch * (output_len - 1)
            plain_s, guessing_s = median(times[False]), median(times[True])
            made = [(b - a) / (1 + ROUNDS) for a, b in zip(counts, after, strict=True)]
            yield {
                "text": name,
                "batch": batch,
                "plain_tokens_per_s": tokens / plain_s,
                "guessing_tokens_per_s": tokens / guessing_s,
                "times": plain_s / guessing_s,
                **dict(zip(("drafts", "guessed", "right"), made, strict=True)),
            }


def row_line(row: dict[str, Any]) -> str:
    """A row under HEADING."""
    return (
        f"{row['text']:10}  {row['batch']:5d}  {row['plain_tokens_per_s']:14.0f}  "
        f"{row['guessing_tokens_per_s']:8.0f}  {row['times']:5.3f}  {row['drafts']:6.0f}  "
        f"{row['guessed']:7.0f}  {row['right']:5.0f}"
    )


def _counts(engine: Engine) -> tuple[int, int, int]:
    assert engine.drafter is not None
    counts = engine.drafter.counts
    return counts.drafts, counts.tokens, counts.accepted


def _run(subject: Subject, prompts: list[Text], texts: list[Text], guesses: bool) -> float:
    """Seconds from the first token of the last request to the end."""
    engine, runner = subject.loaded.engine, subject.loaded.runner
    params = SamplingParams(temperature=0, max_new_tokens=len(texts[0]), ignore_eos=True)
    requests = [request for prompt in prompts for request in engine.submit(prompt, params)]
    text_of = dict(zip(requests, texts, strict=True))
    if not guesses:
        for request in requests:
            request.drafts = None
    launch = runner.launch

    def script(request: Request, position: int) -> int:
        return text_of[request][position - len(request.prompt_ids)]

    def launch_scripted(step: Step) -> Pending:
        rows = zip(step.requests, step.starts, step.counts, step.samples, strict=True)
        asked = [(request, start + count) for request, start, count, samples in rows if samples]
        return Scripted(launch(step), asked, script)

    runner.launch = launch_scripted  # type: ignore[method-assign]
    try:
        started = 0.0
        while engine.has_work:
            engine.step()
            if not started and all(request.output_ids for request in requests):
                started = perf_counter()
        return perf_counter() - started
    finally:
        del runner.launch  # the class's own is found again
