"""A model of what CTAs of ranks say to each other in the persistent kernel, and in which order they
read it. Chance decides who goes on, and when what was sent arrives."""

import random
from collections.abc import Iterator
from itertools import product

CTAS, SCORING, UP, DOWN = 4, 1, (0, 1), (1, 2)
"""CTAs of a rank; those with an expert's score, with tiles of up, with tiles of down. The last one
has none, so that nobody but readers of its rows of qkv and of o waits for it"""
LAYERS, STEPS = 3, 4
SLOW = 0.02
"""How often one goes on that is slow, beside one that is not"""

Word = tuple[int, str, int, int]
"""Rank whose memory it is in, what it is, its buffer, number"""


class Overwritten(Exception):
    """A reader found a later word than the one it had to read."""


class Missing(Exception):
    """A step of rank 0 has ended without the logits of another rank."""


class Run:
    """Steps of some ranks.

    buffers     of parts of o; 2 in the kernel
    done_after  of the tag that says that logits are there, from the last one of the step before on;
                1 in the kernel
    """

    def __init__(self, num_ranks: int, seed: int, buffers: int = 2, done_after: int = 1) -> None:
        self.done_after = done_after
        self.chance = random.Random(seed)
        self.num_ranks, self.buffers = num_ranks, buffers
        self.words: dict[Word, int] = {}
        self.on_their_way: list[tuple[Word, int]] = []
        self.slow = {(self.chance.randrange(num_ranks), self.chance.choice((0, 2, 3)))}
        self.steps = dict.fromkeys(range(num_ranks), 0)
        everyone = product(range(num_ranks), range(CTAS))
        self.running = {(rank, cta): self._step(rank, cta, 0) for rank, cta in everyone}

    def finish(self) -> None:
        """All steps. Raises Overwritten or Missing."""
        for _ in range(400_000):
            if not self.running:
                return
            self._go_on()
        raise AssertionError("nobody gets on")

    def _go_on(self) -> None:
        if self.on_their_way and self.chance.random() < 0.3:
            index = self.chance.randrange(len(self.on_their_way))
            word, tag = self.on_their_way.pop(index)
            self.words[word] = tag
            return
        one = self.chance.choice([*self.running])
        if one in self.slow and self.chance.random() > SLOW:
            return
        if next(self.running[one], "ended") == "ended":
            del self.running[one]
            self._begin_next(one[0])

    def _begin_next(self, rank: int) -> None:
        """A rank's next kernel, once all CTAs of the last one have ended."""
        if any(other == rank for other, _ in self.running) or self.steps[rank] + 1 == STEPS:
            return
        self.steps[rank] += 1
        for cta in range(CTAS):
            self.running[rank, cta] = self._step(rank, cta, self.steps[rank] * LAYERS)

    def _step(self, rank: int, cta: int, before: int) -> Iterator[None]:
        """A CTA's part of a step; `before` is the last tag of the step before."""
        everyone = range(self.num_ranks)
        yield from self._token(rank, cta, before + 1)
        for tag in range(before + 1, before + LAYERS + 1):
            if tag > before + 1:
                yield from self._terms(rank, tag - 1)
            yield from self._send([rank], "qkv", 0, cta, tag)
            yield from self._read(rank, "qkv", 0, range(CTAS), tag)
            buffer = tag % self.buffers
            yield from self._send(everyone, "middle", buffer, rank * CTAS + cta, tag)
            yield from self._read(rank, "middle", buffer, range(self.num_ranks * CTAS), tag)
            if cta < SCORING:
                yield from self._send([rank], "scores", 0, cta, tag)
            yield from self._read(rank, "scores", 0, range(SCORING), tag)
            if cta in UP:
                yield from self._send([rank], "gated", 0, cta, tag)
            if cta in DOWN:
                yield from self._read(rank, "gated", 0, UP, tag)
                yield from self._send(everyone, "terms", 0, rank * CTAS + cta, tag)
        yield from self._terms(rank, before + LAYERS)
        yield from self._logits(rank, cta, before + LAYERS, before + self.done_after)

    def _token(self, rank: int, cta: int, tag: int) -> Iterator[None]:
        if rank > 0:
            yield from self._read(rank, "token", 0, [0], tag)
        elif cta == 0:
            yield from self._send(range(1, self.num_ranks), "token", 0, 0, tag)

    def _logits(self, rank: int, cta: int, tag: int, done: int) -> Iterator[None]:
        """A fence lies between logits and the word that tells of them."""
        number, others = rank * CTAS + cta, range(CTAS, self.num_ranks * CTAS)
        if rank > 0:
            yield from self._send([0], "logits", 0, number, tag)
            yield from self._read(0, "logits", 0, [number], tag)
            yield from self._send([0], "done", 0, number, done)
        elif cta == 0:
            yield from self._read(0, "done", 0, others, done)
            missing = [n for n in others if self.words.get((0, "logits", 0, n)) != tag]
            if missing:
                raise Missing(f"those of CTAs {missing} after tag {tag}")

    def _terms(self, rank: int, tag: int) -> Iterator[None]:
        senders = [other * CTAS + cta for other in range(self.num_ranks) for cta in DOWN]
        yield from self._read(rank, "terms", 0, senders, tag)

    def _send(self, ranks, what: str, buffer: int, number: int, tag: int) -> Iterator[None]:
        for rank in ranks:
            self.on_their_way.append(((rank, what, buffer, number), tag))
            yield

    def _read(self, rank: int, what: str, buffer: int, numbers, tag: int) -> Iterator[None]:
        for number in numbers:
            while (found := self.words.get((rank, what, buffer, number), 0)) != tag:
                if found > tag:
                    raise Overwritten(f"{what} {number} of {rank}: {found} in place of {tag}")
                yield
            yield
