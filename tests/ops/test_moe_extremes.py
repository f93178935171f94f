"""Sizes that no kernel can serve, refused by name before any launch."""

import pytest

from haast.ops import Routing, moe_down, moe_up

from .test_moe_errors import F32, INT, E, T, full, good, weight


def test_no_expert_a_token():
    nothing = Routing(
        expert_ids=full(T, 0, dtype=INT),
        expert_weights=full(T, 0, dtype=F32),
        expert_offs=full(E + 1, dtype=INT),
        gather_idx=full(0, dtype=INT),
        scatter_idx=full(0, dtype=INT),
    )
    with pytest.raises(ValueError, match=r"^expert_ids must have at least one expert a token; got"):
        moe_up(**{**good(moe_up), "routing": nothing})


def test_more_tokens_than_can_be_counted():
    tokens = 2**27 + 1
    many = Routing(
        expert_ids=full(tokens, 1, dtype=INT),
        expert_weights=full(tokens, 1, dtype=F32),
        expert_offs=full(2, dtype=INT),
        gather_idx=full(tokens, dtype=INT),
        scatter_idx=full(tokens, dtype=INT),
    )
    with pytest.raises(ValueError, match=f"^h has too many tokens, {tokens}: T [*] H is over 2"):
        moe_down(full(tokens, 64), weight(1, 32, 64, paired=False), full(1, 32), many)
