"""Numbers that tell sense from nonsense."""

import math
import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

NGRAM = 4
_MARKUP = re.compile(r"<\|[a-z_]+\|>")
_GLUED_HEADER = re.compile(
    r"assistant(?:analysis|commentary|final)"
    r"|(?:^|\n)(?:assistant|analysis|commentary|final)(?=[A-Z<])"
)


def count_markup(text: str) -> int:
    """Harmony markers in a text, and header words stuck to each other or to text."""
    return len(_MARKUP.findall(text)) + len(_GLUED_HEADER.findall(text))


def repetition(token_ids: Sequence[int]) -> float:
    """Share of a text's 4-grams that occurred before in it; 0 for a text that has none."""
    ngrams = list(zip(*(token_ids[i:] for i in range(NGRAM)), strict=False))
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


class Agreement:
    """How alike two models' next-token distributions are over the same positions."""

    def __init__(self) -> None:
        self.positions = 0
        self._divergence = 0.0
        self._same_top = 0

    def add(self, running: Tensor, control: Tensor) -> None:
        """Logits [N, V] fp32 of both at N positions."""
        p, q = running.double().log_softmax(-1), control.double().log_softmax(-1)
        self.positions += len(p)
        self._divergence += float((p.exp() * (p - q)).sum())
        self._same_top += int((p.argmax(-1) == q.argmax(-1)).sum())

    @property
    def divergence(self) -> float:
        """Mean Kullback-Leibler divergence of control from running, nats."""
        return self._divergence / self.positions

    @property
    def top1(self) -> float:
        """Share of positions where both prefer the same token."""
        return self._same_top / self.positions


def perplexity(log_probs: Iterable[float]) -> float:
    """exp of the mean negative log-probability; infinite if any token is impossible or NaN."""
    values = list(log_probs)
    mean = -sum(values) / len(values)
    return math.exp(mean) if mean < 700 else math.inf


def answer_log_probs(logits: Tensor, prompt_length: int, ids: Sequence[int]) -> list[float]:
    """Log-probabilities of the tokens after the prompt; logits [len(ids), V] of the whole text."""
    rows = logits[prompt_length - 1 : -1].double().log_softmax(-1)
    chosen = torch.tensor(list(ids[prompt_length:]))[:, None]
    return [float(value) for value in rows.gather(1, chosen)]
