"""Routing against sorting in Python."""

import math

import pytest
import torch

from haast import ops

from .pinned import normal, reference

route = reference(ops.route)


def check(routing, logits, num_active):
    """Every field of a Routing against plain Python."""
    num_tokens, num_experts = logits.shape
    chosen, weights = [], []
    for row in logits.double().tolist():
        best = sorted(range(num_experts), key=lambda e: (-row[e], e))[:num_active]
        powers = [math.exp(row[e] - row[best[0]]) for e in best]
        chosen.append(best)
        weights.append([p / math.fsum(powers) for p in powers])
    slots = [(e, t * num_active + a) for t, row in enumerate(chosen) for a, e in enumerate(row)]
    order = [slot for _, slot in sorted(slots)]
    offs = [sum(e < bound for e, _ in slots) for bound in range(num_experts + 1)]
    assert routing.expert_ids.tolist() == chosen
    assert routing.expert_offs.tolist() == offs
    assert routing.scatter_idx.tolist() == order
    assert routing.gather_idx.tolist() == [slot // num_active for slot in order]
    expected = torch.tensor(weights, dtype=torch.float32).view(num_tokens, num_active)
    torch.testing.assert_close(routing.expert_weights, expected, rtol=1e-6, atol=1e-7)
    ints = (routing.expert_ids, routing.expert_offs, routing.gather_idx, routing.scatter_idx)
    assert {x.dtype for x in ints} == {torch.int32}


def test_the_docstrings_example():
    logits = torch.tensor([[3.0, 0, 4, 1], [0, 1, 4, 3], [4, 0, 3, 1]])
    routing = route(logits, 2)
    assert routing.expert_ids.tolist() == [[2, 0], [2, 3], [0, 2]]
    assert routing.expert_offs.tolist() == [0, 2, 2, 5, 6]
    assert routing.scatter_idx.tolist() == [1, 4, 0, 2, 5, 3]
    assert routing.gather_idx.tolist() == [0, 2, 0, 1, 2, 1]
    high = 1 / (1 + math.exp(-1))
    torch.testing.assert_close(routing.expert_weights, torch.tensor([[high, 1 - high]] * 3))
    check(routing, logits, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_active", [1, 3, 7])
@pytest.mark.parametrize("num_tokens", [0, 1, 5, 33])
def test_route(num_tokens, num_active, dtype):
    logits = normal(num_tokens, 7, dtype=dtype)
    check(route(logits, num_active), logits, num_active)


@pytest.mark.parametrize("num_experts", [5, 128])
def test_equal_logits_go_to_the_lower_expert(num_experts):
    """Many experts: an unstable sort would show."""
    routing = route(torch.zeros(3, num_experts), 4)
    assert routing.expert_ids.tolist() == [[0, 1, 2, 3]] * 3
    assert routing.expert_weights.tolist() == [[0.25] * 4] * 3
    logits = normal(9, num_experts).round()
    check(route(logits, 4), logits, 4)


def test_weights_are_of_the_chosen_alone():
    """The softmax does not see the experts left out, however close they came."""
    routing = route(torch.tensor([[1.0, 1.0, 1.0, 1.0]]), 2)
    assert routing.expert_weights.tolist() == [[0.5, 0.5]]


def test_no_tokens():
    routing = route(torch.empty(0, 5), 2)
    assert routing.expert_ids.shape == routing.expert_weights.shape == (0, 2)
    assert routing.expert_offs.tolist() == [0] * 6
    assert routing.gather_idx.tolist() == routing.scatter_idx.tolist() == []


def test_one_hot_expert():
    logits = normal(9, 5)
    logits[:, 3] += 100
    sizes = route(logits, 1).expert_offs.diff().tolist()
    assert sizes == [0, 0, 0, 9, 0]
