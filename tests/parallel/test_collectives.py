"""Gloo between ranks, which are threads here."""

import pytest
import torch

from haast import ops
from haast.parallel.collectives import GlooRanks, come_to, meeting_place

from .thread_ranks import together

SIZE = 3


def gloo(work, wait_s=20.0):
    """work(ranks) on SIZE ranks; what each gives."""
    store, port = meeting_place(SIZE)

    def run(rank):
        own = store if rank == 0 else come_to(port, SIZE)
        return work(GlooRanks(own, rank, SIZE, wait_s))

    return together(SIZE, run)


def drawn(rank, *shape, dtype=torch.bfloat16):
    return torch.randn(shape, generator=torch.Generator().manual_seed(rank)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_sum_is_rounded_once_and_the_same_everywhere(dtype):
    x, weight = drawn(10, 5, 32, dtype=dtype), drawn(11, 32, dtype=dtype)

    def work(ranks):
        with ops.pin({"add_rms_norm": ops.REFERENCE}):
            return ranks.add_rms_norm(x, drawn(ranks.rank, 5, 32, dtype=dtype), weight, 1e-5)

    results = gloo(work)
    terms = [drawn(rank, 5, 32, dtype=dtype).float() for rank in range(SIZE)]
    delta = (terms[0] + terms[1] + terms[2]).to(dtype)
    expected = ops.add_rms_norm.reference(x, delta, weight, 1e-5)
    assert all(
        torch.equal(*pair) for result in results for pair in zip(result, expected, strict=True)
    )


def test_columns_are_put_side_by_side():
    results = gloo(lambda ranks: ranks.gather(drawn(ranks.rank, 4, 6)))
    expected = torch.cat([drawn(rank, 4, 6) for rank in range(SIZE)], 1)
    assert all(torch.equal(result, expected) for result in results)


def test_what_rank_0_has_is_passed_on():
    def work(ranks):
        whole = torch.full((4,), ranks.rank)
        ranks.pass_on(whole[:3])
        return whole.tolist()

    assert gloo(work) == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2]]


def test_a_rank_that_does_not_come_is_an_error():
    def work(ranks):
        if ranks.rank != 1:
            with pytest.raises(RuntimeError):
                ranks.gather(torch.ones(2, 2))

    gloo(work, wait_s=0.5)
