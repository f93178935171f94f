"""What the network computes: one op = one contract, one reference, any number of kernels."""

from typing import Any

from haast.ops.adjust_logits import (
    Biases,
    Masks,
    Penalties,
    adjust_logits,
    count_tokens,
    empty_history,
    reset_history,
)
from haast.ops.attention import StepMeta, attention
from haast.ops.decode_step import (
    MAX_RANKS_VOCAB,
    PERSISTENT,
    DecodeStep,
    StepInputs,
    StepLayer,
    StepNetwork,
    StepRanks,
    inbox_words,
)
from haast.ops.dispatch import REFERENCE, Kernel, Op, Verdict, pin
from haast.ops.hopper import why_no_kernels
from haast.ops.layer_parameters import LayerParameters
from haast.ops.linear import linear
from haast.ops.moe import ExpertWeights, Routing, grouped_matmul, moe_down, moe_up, route
from haast.ops.rms_norm import add_rms_norm, rms_norm
from haast.ops.rope import rope_tables
from haast.ops.rope_kv_write import rope_kv_write
from haast.ops.sample import Sampling, logprobs, sample
from haast.ops.shortlist import ShadowHead, shadow_of, shortlist

MODEL_OPS: tuple[Op[Any, Any], ...] = (
    rms_norm,
    add_rms_norm,
    linear,
    rope_kv_write,
    attention,
    route,
    moe_up,
    moe_down,
    adjust_logits,
    sample,
    count_tokens,
)
"""What generating runs; `shortlist` too, in place of `linear`, for whom a shadow head is made"""
OPS: tuple[Op[Any, Any], ...] = (*MODEL_OPS, shortlist, grouped_matmul)
"""All of them"""

__all__ = [
    "MAX_RANKS_VOCAB",
    "MODEL_OPS",
    "OPS",
    "PERSISTENT",
    "REFERENCE",
    "Biases",
    "DecodeStep",
    "ExpertWeights",
    "Kernel",
    "LayerParameters",
    "Masks",
    "Op",
    "Penalties",
    "Routing",
    "Sampling",
    "ShadowHead",
    "StepInputs",
    "StepLayer",
    "StepMeta",
    "StepNetwork",
    "StepRanks",
    "Verdict",
    "add_rms_norm",
    "adjust_logits",
    "attention",
    "count_tokens",
    "empty_history",
    "grouped_matmul",
    "inbox_words",
    "linear",
    "logprobs",
    "moe_down",
    "moe_up",
    "pin",
    "reset_history",
    "rms_norm",
    "rope_kv_write",
    "rope_tables",
    "route",
    "sample",
    "shadow_of",
    "shortlist",
    "why_no_kernels",
]
