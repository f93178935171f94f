"""Any number of prompts in the tongue of a suite."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from haast.coherence.suite import Suite
from haast.config import ConfigError
from haast.harmony import SystemConfig, Tokenizer, from_chat, render
from haast.harmony.messages import Effort

MAX_EARLIER = 2
"""Questions of a conversation that are answered already; haast-tiny was trained on as many"""
TRIES = 20
"""Drawings a prompt after which there are no more of its length"""


def conversations(
    suite: Suite, tokenizer_path: Path, count: int, longest: int, seed: int
) -> tuple[list[list[int]], frozenset[int]]:
    """Distinct prompts, each of at most `longest` tokens, and the tokens that end an answer.

    The same ones for a seed. At first what the guard itself asks and scores, in any order: the
    questions of `answers` and the prompts of `held_out`. Where these do not suffice, such questions
    after others with their answers, at any reasoning effort.
    Raises ConfigError if there are not that many.
    """
    tokenizer, draw = Tokenizer(tokenizer_path), random.Random(seed)
    own = [_ask([], question, "medium", tokenizer) for question, _ in suite.answers]
    own += [text.prompt_ids for text in suite.held_out]
    draw.shuffle(own)
    found = dict.fromkeys(ids for ids in own if len(ids) <= longest)
    drawn = _drawn(suite, tokenizer, draw)
    for _ in range(TRIES * count):
        if len(found) >= count:
            return [list(ids) for ids in found][:count], tokenizer.stop_ids
        ids = next(drawn)
        if len(ids) <= longest:
            found[ids] = None
    raise ConfigError(
        f"the model's own questions make {len(found)} prompts of up to {longest} tokens, "
        f"not {count}; ask for fewer or longer ones"
    )


def _drawn(suite: Suite, tokenizer: Tokenizer, draw: random.Random) -> Iterator[tuple[int, ...]]:
    while True:
        *earlier, (question, _) = draw.sample(suite.answers, 1 + draw.randint(0, MAX_EARLIER))
        yield _ask(earlier, question, draw.choice(get_args(Effort)), tokenizer)


def _ask(
    earlier: list[tuple[str, str]], question: str, effort: Effort, tokenizer: Tokenizer
) -> tuple[int, ...]:
    messages = []
    for asked, answer in earlier:
        messages += [_said("user", asked), _said("assistant", answer)]
    chat = from_chat([*messages, _said("user", question)], None)
    return tuple(render(chat, tokenizer, SystemConfig(reasoning_effort=effort)))


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
