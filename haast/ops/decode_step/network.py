"""What a decode step is computed from, and which networks the kernel can have."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from haast.mxfp4 import GROUP, SwizzledWeight
from haast.ops.attention.check import GROUP_HEADS, HEAD_DIM
from haast.ops.decode_step import tasks
from haast.ops.layer_parameters import LayerParameters

MAX_LAYERS = 64
MAX_EXPERTS = 128
MAX_TILE_K = 2880
MAX_DENSE_K = 4608
MAX_SHARE_TILE_K = 1536
MAX_SHARE_DENSE_K = 3072
"""Of one of several ranks, the intermediate size and what attention gives"""
NUM_RANKS = (1, 2, 4, 8)
"""That there is a kernel for"""
MAX_RANKS_VOCAB = 1 << 18
"""Tokens whose logits rank 0 has room for"""
MOST_CTAS = 160


@dataclass(frozen=True, eq=False)
class StepLayer(LayerParameters):
    """One layer: its parameters, its cache, the keys that its queries see (None: all)."""

    k_cache: Tensor
    v_cache: Tensor
    window: int | None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """In the order of `Layer` in cuda/step.cuh."""
        up, down = self.up_weight, self.down_weight
        assert isinstance(up, SwizzledWeight) and isinstance(down, SwizzledWeight)
        return (
            *(self.attn_norm, self.qkv_weight, self.qkv_bias, self.sinks),
            *(self.out_weight, self.out_bias, self.mlp_norm, self.router_weight, self.router_bias),
            *(up.storage, self.up_bias, down.storage, self.down_bias),
            *(self.k_cache, self.v_cache),
        )


@dataclass(frozen=True, eq=False)
class StepNetwork:
    """All layers and what is around them."""

    layers: tuple[StepLayer, ...]
    embedding: Tensor
    """[V, H]"""
    norm: Tensor
    """[H]"""
    head: Tensor
    """[V, H]"""
    cos: Tensor
    """[max_length, 32] fp32 from `rope_tables`, as sin"""
    sin: Tensor
    eps: float
    swiglu_limit: float

    @property
    def sizes(self) -> tasks.Sizes:
        """From the tensors' shapes."""
        first = self.layers[0]
        num_experts, double, hidden = first.up_weight.shape
        return tasks.Sizes(
            hidden=hidden,
            num_heads=len(first.sinks),
            num_kv_heads=first.k_cache.shape[1],
            intermediate=double // 2,
            num_experts=num_experts,
            vocab=len(self.head),
        )


@dataclass(frozen=True, eq=False)
class StepInputs:
    """One request and its new token, as numbers on the device; int32 [1] but for two."""

    input_id: Tensor
    input_row: Tensor
    """of `samples`, whose token is then the input; -1: `input_id` is"""
    samples: Tensor
    """[max_requests] int64"""
    position: Tensor
    kv_len: Tensor
    """the new token's key included"""
    slot: Tensor
    window_slot: Tensor
    table_row: Tensor
    """of the page tables"""
    page_tables: Tensor
    """[2, max_requests, max_pages] int32: of layers that see all keys, and of the others"""


@dataclass(frozen=True, eq=False)
class StepRanks:
    """This rank among those that compute steps together, and where they send each other parts.

    All run the same steps in the same order.
    """

    rank: int
    size: int
    inboxes: Tensor
    """[size] int64: addresses, here, of everyone's `inbox_words`, which are zeros at first"""
    state: Tensor
    """[2] int32, zeros at first: how far the tags in the inboxes are"""
    logits: Tensor
    """[MAX_RANKS_VOCAB] bf16 of rank 0, to which all write"""


def inbox_words(size: int, hidden: int) -> int:
    """Of 4 bytes, as `Inbox` in cuda/step.cuh has them: parts of o twice, of down by choice, a
    token's halves, and which CTAs have given their logits."""
    return (2 + tasks.CHOICES) * size * hidden + 2 + size * MOST_CTAS


def why_not(
    sizes: tasks.Sizes,
    windows: Sequence[int | None],
    num_active: int,
    num_ctas: int,
    num_ranks: int = 1,
) -> str | None:
    """Why the kernel cannot have a network, or None.

    sizes       of what one rank has of it
    windows     of its layers, as `StepLayer.window`
    num_active  experts a token
    num_ctas    of the kernel, one an SM
    """
    if num_ranks not in NUM_RANKS:
        return f"takes {NUM_RANKS} ranks, got {num_ranks}"
    if num_ctas > MOST_CTAS:
        return f"takes up to {MOST_CTAS} SMs, got {num_ctas}"
    if num_ranks > 1 and num_ranks * sizes.vocab > MAX_RANKS_VOCAB:
        return f"takes up to {MAX_RANKS_VOCAB} tokens in all, got {num_ranks * sizes.vocab}"
    kinds = {window for window in windows if window is not None}
    if not 2 <= len(windows) <= MAX_LAYERS:
        return f"takes 2 to {MAX_LAYERS} layers, got {len(windows)}"
    if len(kinds) > 1 or kinds - set(windows[:2]):
        return "takes one window, which one of the first two layers has"
    if sizes.num_heads != GROUP_HEADS * sizes.num_kv_heads:
        return f"takes {GROUP_HEADS} query heads a key-value head"
    if num_active != tasks.CHOICES:
        return f"takes {tasks.CHOICES} experts a token, got {num_active}"
    if not num_active <= sizes.num_experts <= min(MAX_EXPERTS, num_ctas):
        return f"takes up to {min(MAX_EXPERTS, num_ctas)} experts, got {sizes.num_experts}"
    if (reason := _why_not_so_long(sizes, num_ranks > 1)) is not None:
        return reason
    for rows in (sizes.qkv_rows, sizes.hidden):
        if not num_ctas <= rows <= tasks.MAX_OWN_ROWS * num_ctas:
            return f"{rows} rows do not share out over {num_ctas} SMs"
    return None


def _why_not_so_long(sizes: tasks.Sizes, is_share: bool) -> str | None:
    """Of what is multiplied: a vector is in the registers of the CTA's warps."""
    inner, heads = (MAX_SHARE_TILE_K, MAX_SHARE_DENSE_K) if is_share else (MAX_TILE_K, MAX_DENSE_K)
    if sizes.hidden % 64 or sizes.hidden > MAX_TILE_K:
        return f"takes a hidden size of a multiple of 64 up to {MAX_TILE_K}, got {sizes.hidden}"
    unit = GROUP if is_share else 64
    if sizes.intermediate % unit or sizes.intermediate > inner:
        of_rank = " of a rank" if is_share else ""
        return (
            f"takes an intermediate size{of_rank} of a multiple of {unit} up to {inner}, "
            f"got {sizes.intermediate}"
        )
    if sizes.num_heads * HEAD_DIM > heads:
        of_rank = " of a rank" if is_share else ""
        return f"takes up to {heads // HEAD_DIM} query heads{of_rank}, got {sizes.num_heads}"
    return None
