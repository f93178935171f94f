"""Bytes: of parameters, of a step, and of what may be taken."""

import math
from collections.abc import Sequence

import torch

from haast.config import Encoding, EngineConfig, ModelConfig, RankPlan
from haast.engine.device import free_memory
from haast.model.layouts import EXPERT_ROLES, OUTER_ROLES, role_axes
from haast.model.parameters import EXPERT_LAYOUTS
from haast.mxfp4 import GROUP
from haast.parallel.share import Share

GRAPH_BYTES = 1 << 30
"""Set aside for the CUDA graphs of all batch sizes and their memory"""


def usable_memory(config: EngineConfig, devices: Sequence[torch.device], rank: int) -> int:
    """Bytes that a rank may take; ranks on one device share what is free there."""
    sharing = devices.count(devices[rank])
    return int(free_memory(devices[rank]) * config.device_memory_utilization) // sharing


def rank_plan(share: Share, device: str, encoding: Encoding, is_swizzled: bool) -> RankPlan:
    """What a rank has of the model."""
    model = share.local
    start, stop = share.vocabulary
    others = share.config.vocab_size - (stop - start)  # whose part of the head is not here
    nbytes = parameter_bytes(model, encoding, is_swizzled=is_swizzled)
    return RankPlan(
        device=device,
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        intermediate_size=model.intermediate_size,
        num_tokens=stop - start,
        weight_bytes=nbytes - 2 * others * model.hidden_size,
    )


def step_bytes(
    config: EngineConfig, num_rows: int, model: ModelConfig, device: torch.device
) -> int:
    """Of one step: routed rows in and between the expert matmuls and their fp32 results, the
    projections and a few hidden states of each token; logits of each row. None on the CPU,
    whose memory is not planned to the last byte."""
    if device.type == "cpu":
        return 0
    hidden, inner = model.hidden_size, model.intermediate_size
    routed = model.num_active_experts * (2 * hidden + 2 * inner + 4 * hidden)
    token = routed + 2 * (2 * model.qkv_size + 6 * hidden)
    logits = 6 * num_rows * model.vocab_size
    return config.max_batch_input_tokens * token + logits + GRAPH_BYTES


def parameter_bytes(model: ModelConfig, encoding: Encoding, *, is_swizzled: bool = False) -> int:
    """Bytes of all parameters once loaded; swizzled MXFP4 experts may have some padding."""
    total = 0
    for role, axes in role_axes(model).items():
        shape = tuple(axis.size for axis in axes)
        count = math.prod(shape)
        if role not in EXPERT_ROLES or encoding == "bfloat16":
            nbytes = 2 * count
        elif is_swizzled:
            nbytes = math.prod(EXPERT_LAYOUTS[role].storage_shape(shape))
        else:
            nbytes = count // 2 + count // GROUP
        total += nbytes if role in OUTER_ROLES else nbytes * model.num_layers
    return total
