"""Log-probabilities against fp64, and that they need no copy of everything."""

import pytest
import torch

from haast.ops import logprobs
from haast.ops.sample import log_softmax

from .pinned import normal


@pytest.mark.parametrize("piece", [1, 3, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [0, 1, 5])
def test_logprobs(monkeypatch, num_rows, dtype, piece):
    monkeypatch.setattr(log_softmax, "PIECE_ROWS", piece)
    logits = (normal(num_rows, 90) * 4).to(dtype)
    token_ids = torch.arange(num_rows) * 7
    exact = logits.double().log_softmax(-1)
    chosen, top_ids, top = logprobs(logits, token_ids, 3)
    assert chosen.dtype == top.dtype == torch.float32 and top_ids.shape == (num_rows, 3)
    torch.testing.assert_close(
        chosen.double(), exact[range(num_rows), token_ids], rtol=1e-6, atol=2e-6
    )
    torch.testing.assert_close(top.double(), exact.gather(1, top_ids), rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(top.double(), exact.topk(3).values, rtol=1e-6, atol=2e-6)


def test_a_row_depends_on_itself_alone():
    """Ties included: bf16 logits have many."""
    logits = normal(40, 300).bfloat16()
    token_ids = torch.arange(40)
    together = logprobs(logits, token_ids, 20)
    for row in (0, 15, 16, 39):
        alone = logprobs(logits[row : row + 1], token_ids[row : row + 1], 20)
        assert all(torch.equal(a[0], b[row]) for a, b in zip(alone, together, strict=True))


def test_no_top():
    chosen, top_ids, top = logprobs(torch.zeros(2, 4), torch.tensor([0, 3]), 0)
    assert chosen.tolist() == pytest.approx([-1.3862944] * 2)
    assert top_ids.shape == top.shape == (2, 0)


@pytest.mark.parametrize("num_top", [-1, 5])
def test_a_wrong_number(num_top):
    with pytest.raises(ValueError, match=rf"^num_top must be 0..4; got {num_top}$"):
        logprobs(torch.zeros(2, 4), torch.tensor([0, 3]), num_top)
