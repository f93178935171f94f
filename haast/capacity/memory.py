"""What fits: weights, one step's tensors, and keys and values in the rest."""

from dataclasses import dataclass

import torch

from haast.capacity.simulate import Limits
from haast.config import ConfigError, EngineConfig, ModelConfig
from haast.engine.footprint import parameter_bytes, step_bytes
from haast.engine.kv_plan import KVSizes, plan_kv
from haast.engine.plan import max_window
from haast.model.kv_cache import PAGE_SIZE, TokenBytes

GPU_BYTES = {"H100": 78 << 30, "H200": 139 << 30}
"""Kind of card -> what an empty one has free"""
BATCH = 256
"""As `haast serve` without a wish"""


@dataclass(frozen=True)
class Room:
    """Of one replica; bytes are of each of its GPUs."""

    weight_bytes: int
    kv_bytes: int
    limits: Limits


def room(model: ModelConfig, kind: str, num_gpus: int, request_tokens: int) -> Room:
    """Weights, keys and values divided evenly between the GPUs of a replica.

    request_tokens  of the longest request
    Raises ConfigError if it does not fit.
    """
    if request_tokens > model.max_length:
        raise ConfigError(f"{request_tokens} tokens exceed the model's {model.max_length}")
    wishes = EngineConfig()
    weight_bytes = parameter_bytes(model, "mxfp4", is_swizzled=True) // num_gpus
    workspace_bytes = step_bytes(wishes, BATCH, model, torch.device("cuda"))
    available = int(GPU_BYTES[kind] * wishes.device_memory_utilization)
    token = TokenBytes.of(model, torch.bfloat16)
    sizes = KVSizes(
        page_bytes=PAGE_SIZE * token.full // num_gpus,
        window_page_bytes=PAGE_SIZE * token.window // num_gpus,
        window=max_window(model),
        page_size=PAGE_SIZE,
    )
    left = available - weight_bytes - workspace_bytes
    kv = plan_kv(sizes, left, BATCH, request_tokens, wishes.max_batch_input_tokens)
    limits = Limits(kv.max_batch_size, wishes.max_batch_input_tokens, kv.num_pages * PAGE_SIZE)
    return Room(weight_bytes, kv.kv_bytes, limits)
