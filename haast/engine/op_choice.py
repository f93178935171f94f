"""Which implementation of each op will run, and why."""

from collections.abc import Sequence
from typing import Any

import torch

from haast.config import ConfigError, Encoding, EngineConfig, ModelConfig, OpChoice
from haast.ops import (
    MODEL_OPS,
    PERSISTENT,
    REFERENCE,
    Op,
    attention,
    linear,
    moe_down,
    moe_up,
    rope_kv_write,
    route,
    shortlist,
    why_no_kernels,
)
from haast.ops.attention.check import HEAD_DIM, PAGE_SIZE, why_not_this_network
from haast.ops.decode_step.network import why_not
from haast.ops.decode_step.tasks import Sizes, num_ctas_of
from haast.parallel.share import Share, shares_of

EXPERT_OPS = (moe_up.name, moe_down.name)
"""Those that read expert weights; their kernels read them swizzled"""
ATTENTION_OPS = (rope_kv_write.name, attention.name)
"""Those whose kernels are made for the heads of gpt-oss"""
DECODE_STEP = "decode_step"
UNCAPTURABLE = {attention.name, route.name, *EXPERT_OPS}
"""Those whose references read what is on the device"""
DETERMINISTIC = {
    linear.name: "fixed_rows",
    attention.name: "cuda_prefill",
    moe_up.name: "cuda_wgmma",
    moe_down.name: "cuda_wgmma",
}
"""Op -> the implementation in which a row's bits depend on that row alone; all others are so"""


def choose_ops(
    config: EngineConfig, model: ModelConfig, encoding: Encoding, device: torch.device
) -> tuple[OpChoice, ...]:
    """Of every op that generating runs.

    Raises ConfigError if deterministic results are wished for where no kernel gives them.
    """
    ops = (*MODEL_OPS, shortlist) if config.shortlist_head else MODEL_OPS
    choices = tuple(_choose(op, model, encoding, device) for op in ops)
    if not config.deterministic:
        return choices
    for name in (attention.name, *EXPERT_OPS):
        if not runs_kernel(choices, name):
            why = next(c.because for c in choices if c.op == name)
            raise ConfigError(f"deterministic needs the kernel of {name}, which cannot run: {why}")
    return tuple(
        OpChoice(c.op, DETERMINISTIC[c.op], "deterministic") if c.op in DETERMINISTIC else c
        for c in choices
    )


def choose_decode_step(
    config: EngineConfig, model: ModelConfig, encoding: Encoding, devices: Sequence[torch.device]
) -> OpChoice:
    """Whether decodes of one request run in one kernel, or op by op, and why."""
    shares = shares_of(model, config.devices, len(devices))
    for share, device in zip(shares, devices, strict=True):
        why = _why_op_by_op(config, share, encoding, device)
        if why is not None:
            return OpChoice(DECODE_STEP, REFERENCE, f"op by op: {why}")
    counts = sorted({num_ctas_of(device) for device in devices})
    if len(counts) > 1:
        why = f"its ranks take GPUs with as many SMs each, got {counts[0]} to {counts[-1]}"
        return OpChoice(DECODE_STEP, REFERENCE, f"op by op: {why}")
    where = f" on each of {len(devices)} devices" if len(devices) > 1 else ""
    return OpChoice(DECODE_STEP, PERSISTENT, f"steps of one request in one kernel{where}")


def _why_op_by_op(
    config: EngineConfig, share: Share, encoding: Encoding, device: torch.device
) -> str | None:
    if (reason := why_no_kernels(device)) is not None:
        return reason
    if config.deterministic:
        return "deterministic, so that a request's bits do not depend on others"
    if config.kv_cache_format != "bfloat16" or encoding != "mxfp4":
        return "it takes MXFP4 experts and a KV cache in bfloat16"
    model = share.local
    if (model.head_dim, config.kv_cache_page_size) != (HEAD_DIM, PAGE_SIZE):
        return f"it takes heads of {HEAD_DIM} and pages of {PAGE_SIZE}"
    sizes = Sizes(
        hidden=model.hidden_size,
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        intermediate=model.intermediate_size,
        num_experts=model.num_experts,
        vocab=model.vocab_size // share.size,
    )
    num_ctas, active = num_ctas_of(device), model.num_active_experts
    return why_not(sizes, model.windows, active, num_ctas, share.size)


def runs_kernel(choices: tuple[OpChoice, ...], op: str) -> bool:
    """Whether one of an op's kernels will run, not its reference."""
    return any(c.op == op and c.implementation != REFERENCE for c in choices)


def are_capturable(choices: tuple[OpChoice, ...], device: torch.device) -> bool:
    """Whether CUDA graphs can hold a step: some references read on the host what it computes."""
    return device.type == "cuda" and all(runs_kernel(choices, name) for name in UNCAPTURABLE)


def _choose(
    op: Op[Any, Any], model: ModelConfig, encoding: Encoding, device: torch.device
) -> OpChoice:
    """Its kernels wherever they can run, else the reference and why."""
    why = _why_no_kernel(op, model, encoding, device)
    if why is not None:
        return OpChoice(op.name, REFERENCE, why)
    kernels = ", ".join(kernel.name for kernel in op.kernels if kernel.is_default)
    return OpChoice(op.name, None, f"the first that accepts the call: {kernels}")


def _why_no_kernel(
    op: Op[Any, Any], model: ModelConfig, encoding: Encoding, device: torch.device
) -> str | None:
    if not op.has_kernels:
        return "no kernel in its table"
    if op.name in ATTENTION_OPS:
        heads = (model.num_heads, model.num_kv_heads, model.head_dim)
        if (reason := why_not_this_network(*heads)) is not None:
            return f"its kernel {reason}"
    if op.name in EXPERT_OPS and encoding == "bfloat16":
        return "no kernel for dense experts"
    return why_no_kernels(device)
