"""Plans for a GPU that need none."""

from dataclasses import replace
from pathlib import Path

import torch

from haast.config import EngineConfig
from haast.engine.op_choice import DECODE_STEP
from haast.engine.plan import Source, make_plan

from .small_model import CONFIG

GPU = torch.device("cuda", 0)
MODEL = replace(CONFIG, max_length=1000)
WIDE = replace(MODEL, head_dim=64, num_heads=16, num_kv_heads=2)
"""With heads as the attention kernels want them"""
BY_KERNELS = ("route", "moe_up", "moe_down")
LEFT = (None, "the first that accepts the call: small, wide")


def planned(encoding="mxfp4", device=GPU, model=MODEL, **wishes):
    source = Source(Path("somewhere"), "hf", ("a.safetensors",))
    return make_plan(EngineConfig(**wishes), model, source, encoding, device)


def choices(plan):
    """Of the ops one by one."""
    return {
        choice.op: (choice.implementation, choice.because)
        for choice in plan.ops
        if choice.op != DECODE_STEP
    }


def pins(plan):
    return {op: name for op, name in plan.pins.items() if op != DECODE_STEP}
