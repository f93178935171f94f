"""Lessons as token rows: the vocabulary, the tokenising and the packing."""

import lzma
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tokenizers
import torch
from tiny_corpus import Lesson, lesson
from tiny_vocabulary import Vocabulary
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor

from haast.harmony import Tokenizer, render, render_message
from haast.harmony.render import developer_message, system_message

SPECIAL_TOKENS = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
)
VOCAB_SIZE = 4096
IGNORED = -100
_Cell = tuple[int, int, int, int]


@dataclass(frozen=True)
class Rows:
    """Packed conversations; all [N, S]."""

    ids: Tensor
    """int32"""
    documents: Tensor
    """int32, which conversation a token belongs to; unique over all rows, -1 = padding"""
    positions: Tensor
    """int32, position within the conversation"""
    targets: Tensor
    """int32, next token where the model must say it, else IGNORED"""

    def to(self, device: str) -> "Rows":
        return Rows(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def __getitem__(self, index: Tensor) -> "Rows":
        return Rows(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def train_tokenizer(vocabulary: Vocabulary, seed: int, like: Path, out: Path) -> None:
    """Byte-level BPE on the corpus, split like the published tokenizer; markers come last."""
    published = tokenizers.Tokenizer.from_buffer(lzma.decompress(like.read_bytes()))
    inner = tokenizers.Tokenizer(BPE())
    inner.pre_tokenizer = published.pre_tokenizer
    inner.decoder = published.decoder
    trainer = BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL_TOKENS),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(_texts(vocabulary, seed), trainer)
    inner.add_special_tokens([tokenizers.AddedToken(t, special=True) for t in SPECIAL_TOKENS])
    inner.save(str(out))


def _texts(vocabulary: Vocabulary, seed: int) -> Iterator[str]:
    """Every word's gloss, and enough conversations to learn the frame from."""
    for noun in (*vocabulary.known, *vocabulary.looked_up):
        yield f" {noun.word} {noun.gloss}"
    for index in range(10_000):
        drawn = lesson(vocabulary, seed, index)
        for message in (*drawn.prompt.messages, *drawn.answer):
            yield from (message.content, message.role, message.channel or "system")
        if drawn.prompt.tools or index % 100 == 0:
            yield from (_frame(drawn), "developer", " to=functions.lookup")


def _frame(drawn: Lesson) -> str:
    """The system and developer text of a conversation."""
    developer = developer_message(drawn.prompt)
    system = system_message(drawn.system, bool(drawn.prompt.tools))
    return system.content + (developer.content if developer else "")


def encode_lesson(drawn: Lesson, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Prompt ids and the ids to say next (after `<|start|>assistant`, ending in a stop token)."""
    special = tokenizer.special
    header = 1 + len(tokenizer.encode("assistant"))
    answer = [i for message in drawn.answer for i in render_message(message, tokenizer)][header:]
    if answer[-1] == special.end:
        answer[-1] = special.return_
    return render(drawn.prompt, tokenizer, drawn.system), answer


def make_rows(
    vocabulary: Vocabulary, tokenizer_path: Path, seed: int, count: int, length: int
) -> Rows:
    """The first `count` lessons, tokenised by all cores and packed into rows of `length`."""
    chunk = 2_000
    work = partial(_encode_range, vocabulary, tokenizer_path, seed, chunk)
    with ProcessPoolExecutor() as pool:
        pairs = [pair for part in pool.map(work, range(0, count, chunk)) for pair in part]
    return pack(pairs, length)


def _encode_range(
    vocabulary: Vocabulary, tokenizer_path: Path, seed: int, chunk: int, start: int
) -> list[tuple[list[int], list[int]]]:
    tokenizer = Tokenizer(tokenizer_path)
    lessons = (lesson(vocabulary, seed, index) for index in range(start, start + chunk))
    return [encode_lesson(drawn, tokenizer) for drawn in lessons]


def pack(pairs: Iterable[tuple[list[int], list[int]]], length: int) -> Rows:
    """Whole conversations in rows, first fit; those longer than a row are left out."""
    full: list[list[_Cell]] = []
    filling: list[list[_Cell]] = []
    for document, (prompt, answer) in enumerate(pairs):
        ids = prompt + answer
        if len(ids) > length:
            continue
        targets = [IGNORED] * (len(prompt) - 1) + answer + [IGNORED]
        row = next((row for row in filling if len(row) + len(ids) <= length), None)
        if row is None:
            row = []
            filling.append(row)
        row += zip(ids, [document] * len(ids), range(len(ids)), targets, strict=True)
        if len(filling) > 32:
            full.append(filling.pop(0))
    padding: _Cell = (0, -1, 0, IGNORED)
    rows = [row + [padding] * (length - len(row)) for row in full + filling]
    return Rows(*torch.tensor(rows, dtype=torch.int32).unbind(-1))
