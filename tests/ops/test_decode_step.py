"""A decode step cut into the tasks of the persistent kernel's CTAs is the step op by op."""

import re
from pathlib import Path

import pytest
import torch

import haast.cuda
from haast.ops.decode_step import network, tasks, twin
from haast.ops.decode_step.cuda_persistent import PHASES
from haast.ops.decode_step.network import MAX_EXPERTS, MAX_LAYERS, why_not
from haast.ops.decode_step.tasks import Sizes, Spans

from .one_request import OneRequest

REAL = Sizes(2880, 64, 8, 2880, 32, 201088)
HEADER = (Path(haast.cuda.__file__).parent / "step.cuh").read_text()
SHARED = {
    "STEP_WARPS": tasks.WARPS,
    "STRIP": tasks.STRIP,
    "MOST_SPLITS": tasks.MOST_SPLITS,
    "SLOT_BYTES": tasks.SLOT_BYTES,
    "ROW_GAP": tasks.ROW_GAP,
    "DENSE_ROWS": tasks.DENSE_ROWS,
    "CHOICES": tasks.CHOICES,
    "MAX_OWN_ROWS": tasks.MAX_OWN_ROWS,
    "MAX_LAYERS": MAX_LAYERS,
    "MAX_STEP_EXPERTS": MAX_EXPERTS,
    "STAMPS": len(PHASES),
    "MAX_TILE_BLOCKS": network.MAX_TILE_K // 64,
    "MAX_DENSE_BLOCKS": network.MAX_DENSE_K // 64,
    "MAX_SHARE_TILE_BLOCKS": network.MAX_SHARE_TILE_K // 64,
    "MAX_SHARE_DENSE_BLOCKS": network.MAX_SHARE_DENSE_K // 64,
    "MOST_RANKS": max(network.NUM_RANKS),
    "MOST_CTAS": network.MOST_CTAS,
}


@pytest.mark.parametrize(("length", "num_ctas"), [(1, 132), (40, 1), (150, 7), (129, 132)])
def test_the_tasks_of_all_ctas_are_a_step(length, num_ctas):
    """Each computes its own only, so that what none or two computed would show."""
    one = OneRequest(length, "cpu")
    expected = one.op_by_op()
    caches = [(k.clone(), v.clone()) for k, v in one.kv.layers]
    one.forget_newest()
    logits = twin.decode_step(one.network, one.inputs, num_ctas)
    assert logits.argmax() == expected.argmax()
    assert (logits - expected).float().norm() < 0.01 * expected.float().norm()
    for (k, v), (k_before, v_before) in zip(one.kv.layers, caches, strict=True):
        torch.testing.assert_close(k, k_before, atol=0.05, rtol=0.02, equal_nan=True)
        torch.testing.assert_close(v, v_before, atol=0.05, rtol=0.02, equal_nan=True)


@pytest.mark.parametrize("name", SHARED)
def test_the_kernel_and_its_twin_have_the_same_sizes(name):
    [value] = re.findall(rf"constexpr int {name} = (\d+);", HEADER)
    assert int(value) == SHARED[name]


@pytest.mark.parametrize("window", [None, 1, 32, 128])
def test_strips_of_all_warps_are_the_visible_keys_once(window):
    for kv_len in (1, 15, 16, 17, 127, 128, 129, 1000, 5000):
        spans = Spans(kv_len, window)
        mine = [
            strip
            for split in range(spans.num_splits)
            for warp in range(tasks.WARPS)
            for strip in spans.of_warp(split, warp)
        ]
        first = 0 if window is None else max(0, kv_len - window)
        assert sorted(mine) == list(range(first // 16, (kv_len - 1) // 16 + 1))
        assert spans.num_splits <= tasks.MOST_SPLITS
        if len(spans.strips) <= 192:
            assert all(
                len(spans.of_warp(split, 0)) == 1 for split in range(spans.num_splits)
            )  # one round


def test_shares_of_real_networks_are_even():
    for rows, k in ((REAL.qkv_rows, 2880), (2880, 4096), (201088, 2880)):
        counts = [sum(map(len, tasks.dense_slots(rows, k, cta, 132))) for cta in range(132)]
        assert sum(counts) == rows and max(counts) - min(counts) <= 1
    up = [len(tasks.up_units(REAL, cta, 132)) for cta in range(132)]
    down = [len(tasks.down_units(REAL, cta, 132)) for cta in range(132)]
    assert (sum(up), max(up), sum(down), max(down)) == (1440, 11, 720, 6)


@pytest.mark.parametrize(
    ("sizes", "windows", "active", "says"),
    [
        (REAL, (128, None), 4, None),
        (REAL, (None, None), 4, None),
        (REAL, (128,), 4, "2 to 64 layers"),
        (REAL, (None, None, 128), 4, "one of the first two"),
        (REAL, (128, 64), 4, "one window"),
        (REAL, (128, None), 2, "4 experts a token"),
        (Sizes(2880, 60, 8, 2880, 32, 10), (128, None), 4, "8 query heads"),
        (Sizes(2880, 64, 8, 2880, 200, 10), (128, None), 4, "up to 128 experts"),
        (Sizes(2880, 64, 8, 1000, 32, 10), (128, None), 4, "multiple of 64"),
        (Sizes(2880, 80, 10, 2880, 32, 10), (128, None), 4, "up to 72 query heads"),
        (Sizes(64, 8, 1, 64, 32, 10), (128, None), 4, "do not share out over 132"),
    ],
)
def test_which_networks(sizes, windows, active, says):
    reason = why_not(sizes, windows, active, 132)
    assert reason is None if says is None else says in reason
