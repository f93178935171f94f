"""Who serves a dense product, and how the kernel of few tokens cuts it. Needs no GPU."""

from itertools import product

import pytest
import torch

from haast.ops import linear
from haast.ops.linear import cuda_mma, cuda_wgmma

WARPS = 132 * 8
MODEL = ((5120, 2880), (2880, 4096), (32, 2880), (128, 2880), (201_088, 2880))
"""N and K of qkv, o, both models' routers and the head"""


def test_who_serves_a_call():
    def table(num_tokens, k=2880, dtype=torch.bfloat16):
        x = torch.empty(num_tokens, k, dtype=dtype, device="meta")
        return linear.table(x, torch.empty(32, k, dtype=dtype, device="meta"), None)

    for num_tokens, k in product((1, 16), (2880, 4096)):
        assert [v.runs for v in table(num_tokens, k)] == [True, False, False, False, False]
    for num_tokens, k in product((17, 256), (2880, 4096)):
        assert [v.runs for v in table(num_tokens, k)] == [False, True, False, False, False]
    assert [v.runs for v in table(257)] == [False, False, True, False, False]
    reasons = {
        "takes up to 16 tokens, got 17": table(17),
        "takes torch.bfloat16, got torch.float32": table(1, dtype=torch.float32),
        "takes rows of a multiple of 64, got 96": table(1, 96),
        "16 rows of 8192 do not fit into shared memory": table(16, 8192),
    }
    for reason, verdicts in reasons.items():
        assert verdicts[0].reason == reason and any(v.runs for v in verdicts[1:])


@pytest.mark.parametrize("shape", [*MODEL, (1, 64), (9000, 64), (5000, 5056)], ids=str)
@pytest.mark.parametrize("num_tokens", [1, 2, 8, 9, 16])
def test_every_row_comes_in_pieces_that_fit(shape, num_tokens):
    num_rows, k = shape
    piece, rows, stages = cuda_mma._tiling(num_tokens, 2 * k, num_rows, WARPS)
    assert piece % 128 == 0 and 0 < piece <= -(-2 * k // 128) * 128
    assert 1 <= rows <= 8 and rows >= min(8, num_rows // WARPS)
    assert 1 <= stages <= 3
    used = cuda_mma._shared_bytes(num_tokens, 2 * k, piece, rows, stages)
    assert used <= 227 * 1024


def test_few_tokens_have_rings_of_several_kilobytes():
    """Fewer bytes on their way, or pieces below 512 bytes, cost up to twice the time."""
    for (num_rows, k), num_tokens in product(MODEL, (1, 8)):
        piece, rows, stages = cuda_mma._tiling(num_tokens, 2 * k, num_rows, WARPS)
        assert piece >= 512 and piece * rows * stages >= 8 * 1024


@pytest.mark.parametrize("num_rows", [8, 32, 128, 640, 1280, 2560, 2880, 5120])
@pytest.mark.parametrize("num_tokens", [17, 64])
def test_clusters_have_all_rows_and_fit(num_rows, num_tokens):
    tile = cuda_wgmma.tiling(num_tokens, num_rows)
    assert tile.token_tiles == 1
    assert (tile.clusters - 1) * tile.rows < num_rows <= tile.clusters * tile.rows
    assert tile.clusters * tile.cluster <= 132
    sums = 64 * (tile.rows + 8) * 4
    assert 4 * (tile.rows * 128 + 8192) <= tile.shared_bytes <= 168 * 1024 and sums < 120 * 1024


def test_more_tokens_only_of_few_rows():
    assert cuda_wgmma.tiling(256, 32).token_tiles == 4
    assert cuda_wgmma.tiling(65, 2880) is None and cuda_wgmma.tiling(64, 5281) is None
