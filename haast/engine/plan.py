"""Wishes and facts -> the Plan of what will run."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from haast.config import (
    ConfigError,
    Encoding,
    EngineConfig,
    MemoryPlan,
    ModelConfig,
    OpChoice,
    Plan,
)
from haast.engine.device import device_name, free_memory
from haast.model.kv_cache import PAGE_SIZE, TokenBytes
from haast.model.layouts import EXPERT_ROLES, OUTER_ROLES, role_axes
from haast.model.parameters import EXPERT_LAYOUTS
from haast.mxfp4 import GROUP
from haast.ops import MODEL_OPS, REFERENCE, Op, moe_down, moe_up, why_no_kernels

EXPERT_OPS = (moe_up.name, moe_down.name)
"""Those that read expert weights; their kernels read them swizzled"""


@dataclass(frozen=True)
class Source:
    """Where the weights come from, for the plan."""

    path: Path
    layout: str
    files: tuple[str, ...]


def make_plan(
    config: EngineConfig,
    model: ModelConfig,
    source: Source,
    encoding: Encoding,
    device: torch.device,
) -> Plan:
    """Decide memory, lengths and ops before anything is loaded.

    Raises ConfigError in one line if the wishes do not fit the model or the memory.
    """
    ops = tuple(_choose(op, encoding, device) for op in MODEL_OPS)
    is_swizzled = any(c.op in EXPERT_OPS and c.implementation is None for c in ops)
    weight_bytes = parameter_bytes(model, encoding, is_swizzled=is_swizzled)
    budget = int(free_memory(device) * config.device_memory_utilization) - weight_bytes
    length = config.max_length or model.max_length
    if length > model.max_length:
        raise ConfigError(f"max_length {length} exceeds the model's {model.max_length}")
    page_bytes = PAGE_SIZE * TokenBytes.of(model, torch.bfloat16).total
    wanted = config.max_batch_size * -(-length // PAGE_SIZE)
    num_pages = min(wanted, budget // page_bytes)
    if num_pages < 1 or (config.max_length is not None and num_pages * PAGE_SIZE < length):
        raise ConfigError(
            _too_little(config, weight_bytes, budget, length * page_bytes // PAGE_SIZE)
        )
    return Plan(
        model_path=source.path,
        architecture=model.architecture,
        layout=source.layout,
        files=source.files,
        encoding=encoding,
        is_swizzled=is_swizzled,
        device=device_name(device),
        max_length=min(length, num_pages * PAGE_SIZE),
        max_batch_size=config.max_batch_size,
        ops=ops,
        warning=_warning(device),
        memory=MemoryPlan(
            weight_bytes=weight_bytes,
            available_bytes=budget + weight_bytes,
            kv_bytes_per_token=page_bytes // PAGE_SIZE,
            num_pages=num_pages,
            page_size=PAGE_SIZE,
        ),
    )


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


def _choose(op: Op[Any, Any], encoding: Encoding, device: torch.device) -> OpChoice:
    """Its kernels wherever they can run, else the reference and why."""
    why = _why_no_kernel(op, encoding, device)
    if why is not None:
        return OpChoice(op.name, REFERENCE, why)
    kernels = ", ".join(kernel.name for kernel in op.kernels)
    return OpChoice(op.name, None, f"the first that accepts the call: {kernels}")


def _why_no_kernel(op: Op[Any, Any], encoding: Encoding, device: torch.device) -> str | None:
    if not op.kernels:
        return "no kernel in its table"
    if op.name in EXPERT_OPS and encoding == "bfloat16":
        return "no kernel for dense experts"
    return why_no_kernels(device)


def _warning(device: torch.device) -> str | None:
    """A GPU without kernels runs, but slowly: nobody should have to find out from the speed."""
    why = None if device.type == "cpu" else why_no_kernels(device)
    return why and f"this GPU runs only references, which are slow: {why}"


def _too_little(config: EngineConfig, weight_bytes: int, budget: int, kv_bytes: int) -> str:
    usable = budget + weight_bytes
    limit = (
        f"{usable / 1e9:.2f} GB may be used ({config.device_memory_utilization:g} of what is free)"
    )
    if budget < 0:
        return (
            f"memory is short: the weights take {weight_bytes / 1e9:.2f} GB, but {limit}; "
            "use a device with more, mxfp4 instead of bfloat16, or free memory on it"
        )
    return (
        f"memory is short: weights take {weight_bytes / 1e9:.2f} GB and one request of full length "
        f"{kv_bytes / 1e9:.2f} GB, but {limit}; "
        "lower max_length, raise device_memory_utilization or free memory on the device"
    )
