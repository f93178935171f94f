"""Some dozens of tokens: clusters share K, weights come once. See cuda/linear_wgmma.cu."""

from dataclasses import dataclass

from torch import Tensor

from haast.cuda.launcher import launch
from haast.cuda.tensor_map import row_map
from haast.ops.dispatch import Kernel
from haast.ops.hopper import why_no_kernels
from haast.ops.linear.check import BLOCK_K, why_rejected
from haast.ops.linear.cuda_mma import MAX_TOKENS as FEW_TOKENS

MAX_TOKENS = 256
_FEW_ROWS = 256
"""Such as a router's: more than a CTA's tokens are taken only with these"""
_CTA_TOKENS = 64
_TILES = ((4, 16, 30), (4, 48, 30), (4, 96, 30), (2, 80, 66))
"""CTAs of a cluster, its weight rows, and as many clusters as run at once on any card"""
_SHARED = 168 * 1024
"""Of a CTA; the kernel before has the rest"""
_EARLY_STAGES = 4
"""Weights on their way before tokens are: more would hold those up"""
_THREADS = 160
_BIAS_ALIGNMENT = 8


@dataclass(frozen=True)
class Tiling:
    """How a product is cut."""

    cluster: int
    """CTAs that share K"""
    rows: int
    """weight rows of a cluster"""
    clusters: int
    """for all weight rows"""
    token_tiles: int

    @property
    def symbol(self) -> str:
        return f"linear_wgmma_c{self.cluster}_n{self.rows}"

    @property
    def stages(self) -> int:
        """Of the ring, each 64 of K."""
        return _SHARED // self._stage_bytes

    @property
    def shared_bytes(self) -> int:
        """Ring and barriers."""
        return self.stages * self._stage_bytes

    @property
    def _stage_bytes(self) -> int:
        return (self.rows + _CTA_TOKENS) * BLOCK_K * 2 + 2 * 8


def tiling(num_tokens: int, num_rows: int) -> Tiling | None:
    """With the fewest weight rows a cluster that keep all clusters running at once; None if there
    are too many rows or tokens for that."""
    token_tiles = -(-num_tokens // _CTA_TOKENS)
    if token_tiles > 1 and num_rows > _FEW_ROWS:
        return None
    for cluster, rows, most in _TILES:
        clusters = -(-num_rows // rows)
        if clusters * token_tiles <= most:
            return Tiling(cluster, rows, clusters, token_tiles)
    return None


def _rejects(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    if (reason := why_rejected(x, weight, bias)) is not None:
        return reason
    if not FEW_TOKENS < len(x) <= MAX_TOKENS:
        return f"takes {FEW_TOKENS + 1} to {MAX_TOKENS} tokens, got {len(x)}"
    if len(weight) % 8 or not len(weight):
        return f"takes a multiple of 8 weight rows, got {len(weight)}"
    if bias is not None and bias.device.type == "cuda" and bias.data_ptr() % _BIAS_ALIGNMENT:
        return f"takes a bias at a multiple of {_BIAS_ALIGNMENT} bytes"
    if tiling(len(x), len(weight)) is None:
        return f"has no tile for {len(weight)} weight rows of {len(x)} tokens"
    return why_no_kernels(x.device)


def _symbols(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[str, ...]:
    tile = tiling(len(x), len(weight)) if len(x) else None
    return () if tile is None else (tile.symbol,)


def _run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    (num_tokens, k), num_rows = x.shape, len(weight)
    out = x.new_empty(num_tokens, num_rows)
    tile = tiling(num_tokens, num_rows)
    assert tile is not None, "such a call is rejected"
    launch(
        "linear_wgmma",
        tile.symbol,
        grid=(tile.cluster * tile.clusters, tile.token_tiles, 1),
        block=_THREADS,
        shared_bytes=tile.shared_bytes,
        args=(
            *(row_map(x, _CTA_TOKENS), row_map(weight, tile.rows), bias, out),
            *(num_tokens, num_rows, k // BLOCK_K, tile.stages, _EARLY_STAGES),
        ),
    )
    return out


WGMMA = Kernel(
    "cuda_wgmma",
    _run,
    _rejects,
    _symbols,
    because="o of gpt-oss-20b at 32 and 64 tokens 10.2 us, cuBLAS 13.8 and 11.1; router 3.7 and "
    "5.9 (H100)",
)
