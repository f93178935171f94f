"""Penalties, masks and biases against loops over tokens, and the history that penalties read."""

import math

import pytest
import torch

from haast import ops
from haast.ops import Biases, Masks, Penalties, empty_history, reset_history

from .pinned import normal, reference

adjust_logits, count_tokens = reference(ops.adjust_logits), reference(ops.count_tokens)
CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16]


def ints(*values, dtype=torch.int32):
    return torch.tensor(values, dtype=dtype)


def history_of(*requests, vocab):
    """A row for each (prompt, output)."""
    history = empty_history(len(requests), vocab, CPU)
    for row, (prompt, output) in enumerate(requests):
        reset_history(
            history, row, ints(*prompt, dtype=torch.int64), ints(*output, dtype=torch.int64)
        )
    return history


def penalised(x, token, prompt, output, repetition, presence, frequency):
    """By the definitions, in floats."""
    if token in prompt or token in output:
        x = x / repetition if x > 0 else x * repetition
    return x - frequency * output.count(token) - presence * (token in output)


@pytest.mark.parametrize("dtype", DTYPES)
def test_penalties(dtype):
    requests = [([1, 2, 2, 5], [5, 7, 7]), ([0], []), ([], [3, 3, 3, 4])]
    rows = ints(2, -1, 0, 1)
    repetition, presence, frequency = [1.3, 9.0, 0.7, 2.0], [0.5, 9, -0.25, 1], [0.125, 9, 0.5, 1]
    logits = (normal(4, 40) * 3).to(dtype)
    got = logits.clone()
    penalties = Penalties(
        history_of(*requests, vocab=40),
        rows,
        *(torch.tensor(v) for v in (repetition, presence, frequency)),
    )
    assert adjust_logits(got, penalties, None, None) is None
    for i, row in enumerate(rows.tolist()):
        for token in range(40):
            x = logits[i, token].item()
            if row >= 0:
                x = penalised(x, token, *requests[row], repetition[i], presence[i], frequency[i])
            rel = 2**-8 if dtype == torch.bfloat16 else 1e-6
            assert got[i, token].item() == pytest.approx(x, rel=rel), (i, token)
    assert torch.equal(got[1], logits[1]) and not torch.equal(got[0], logits[0])


@pytest.mark.parametrize("vocab", [32, 33, 75])
@pytest.mark.parametrize("dtype", DTYPES)
def test_masks(dtype, vocab):
    allowed = [{0, 31, vocab - 1}, set(range(0, vocab, 3)), set()]
    words = torch.zeros(3, -(-vocab // 32), dtype=torch.int64)
    for row, tokens in enumerate(allowed):
        for token in tokens:
            words[row, token // 32] |= 1 << token % 32
    words = torch.where(words >> 31 == 1, words - (1 << 32), words).to(torch.int32)
    logits = normal(4, vocab).to(dtype)
    got = logits.clone()
    adjust_logits(got, None, Masks(words, ints(1, -1, 0, 2)), None)
    for i, row in enumerate([1, None, 0, 2]):
        for token in range(vocab):
            is_kept = row is None or token in allowed[row]
            assert got[i, token] == (logits[i, token] if is_kept else -math.inf), (i, token)


@pytest.mark.parametrize("dtype", DTYPES)
def test_biases(dtype):
    logits = normal(3, 10).to(dtype)
    got = logits.clone()
    added = {(0, 4): 1.5, (2, 9): -math.inf, (0, 3): -0.25}
    row, token_id = ints(*(at[0] for at in added), -1), ints(*(at[1] for at in added), 4)
    adjust_logits(got, None, None, Biases(row, token_id, torch.tensor([*added.values(), 7.0])))
    for i in range(3):
        for token in range(10):
            wanted = (logits[i, token].float() + added.get((i, token), 0.0)).to(dtype)
            assert got[i, token] == wanted, (i, token)


def test_the_order():
    """Penalties before biases; what a mask forbids stays forbidden."""
    logits = torch.tensor([[2.0, 2.0, -2.0]])
    history = history_of(([0, 1, 2], []), vocab=3)
    penalties = Penalties(history, ints(0), torch.tensor([2.0]), torch.zeros(1), torch.zeros(1))
    biases = Biases(ints(0, 0), ints(0, 1), torch.tensor([-3.0, 100.0]))
    adjust_logits(logits, penalties, Masks(ints(0b101)[None], ints(0)), biases)
    assert logits.tolist() == [[-2.0, -math.inf, -4.0]]


def test_nothing_changes_nothing():
    logits = normal(2, 5)
    got = logits.clone()
    adjust_logits(got, None, None, None)
    assert torch.equal(got, logits)


def test_history():
    history = history_of(([3, 3, 1], [2, 3, 2]), ([0], []), vocab=5)
    in_prompt = -0x8000
    assert history.tolist() == [[0, in_prompt, 2, in_prompt + 1, 0], [in_prompt, 0, 0, 0, 0]]
    count_tokens(history, ints(-1, 1, -1, 0), ints(0, 4, 0, 1, dtype=torch.int64))
    assert history.tolist() == [[0, in_prompt + 1, 2, in_prompt + 1, 0], [in_prompt, 0, 0, 0, 1]]
    reset_history(history, 0, ints(4, dtype=torch.int64), ints(dtype=torch.int64))
    assert history.tolist() == [[0, 0, 0, 0, in_prompt], [in_prompt, 0, 0, 0, 1]]


def test_a_count_does_not_reach_the_prompt_bit():
    history = history_of(([1], []), vocab=3)
    history[0] = ints(0x7FFE, -1, 0x7FFF)  # of the middle one: all bits
    for _ in range(3):
        for token in range(3):
            count_tokens(history, ints(0), ints(token, dtype=torch.int64))
    assert history.tolist() == [[0x7FFF, -1, 0x7FFF]]
    many = torch.zeros(40_000, dtype=torch.int64)
    reset_history(history, 0, ints(2, dtype=torch.int64), many)
    assert history.tolist() == [[0x7FFF, 0, -0x8000]]
