"""Wishes and facts -> the Plan of what will run."""

from dataclasses import dataclass
from pathlib import Path

import torch

from haast.config import (
    ConfigError,
    Encoding,
    EngineConfig,
    MemoryPlan,
    ModelConfig,
    Plan,
)
from haast.engine.device import device_name
from haast.engine.footprint import rank_plan, step_bytes, usable_memory
from haast.engine.kv_plan import KVPlan, KVSizes, plan_kv
from haast.engine.op_choice import (
    EXPERT_OPS,
    are_capturable,
    choose_decode_step,
    choose_ops,
    runs_kernel,
)
from haast.model.kv_cache import CACHE_DTYPES, TokenBytes
from haast.ops import attention, why_no_kernels
from haast.ops.attention.check import MAX_REQUESTS, PAGE_SIZE
from haast.ops.shortlist.shadow import shadow_bytes
from haast.parallel.share import shares_of

DEFAULT_BATCH = {True: 256, False: 8}
"""Whether on a GPU -> requests computed at a time, if nobody wishes for a number"""
MOST_DRAFTS = 64
"""Guesses a step: where more requests run, more rows would cost more than guesses win"""
FOR_ONE_DEVICE = ("deterministic", "shortlist_head")
"""Wishes that a model over several devices does not have"""


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
    *devices: torch.device,
) -> Plan:
    """Decide memory, lengths and ops before anything is loaded.

    devices  of the ranks; this process is rank 0
    Raises ConfigError in one line if the wishes do not fit the model, the memory or the devices.
    """
    shares, device = shares_of(model, config.devices, len(devices)), devices[0]
    if len(shares) > 1:
        _check_limits_of_ranks(config)
    own = shares[0].local
    ops = choose_ops(config, own, encoding, device)
    batch_size = _batch_size(config, device)
    has_attention = runs_kernel(ops, attention.name)
    if has_attention:
        _check_limits_of_kernels(config, batch_size)
    max_drafts = _max_drafts(config, batch_size, MAX_REQUESTS if has_attention else None)
    is_swizzled = any(runs_kernel(ops, name) for name in EXPERT_OPS)
    named = zip(shares, map(device_name, devices), strict=True)
    ranks = [rank_plan(share, name, encoding, is_swizzled) for share, name in named]
    weight_bytes = ranks[0].weight_bytes
    if config.shortlist_head:
        weight_bytes += shadow_bytes(own.vocab_size, own.hidden_size)
    workspace_bytes = step_bytes(config, batch_size + max_drafts, own, device)
    available = usable_memory(config, devices, rank=0)
    budget = available - weight_bytes - workspace_bytes
    if budget < 0:
        raise ConfigError(_too_little(config, weight_bytes, workspace_bytes, available))
    sizes = _kv_sizes(config, own)
    length = _length(config, model, sizes, budget)
    kv = plan_kv(sizes, budget, batch_size, length, config.max_batch_input_tokens)
    return Plan(
        model_path=source.path,
        architecture=model.architecture,
        layout=source.layout,
        files=source.files,
        encoding=encoding,
        is_swizzled=is_swizzled,
        device=", ".join(rank.device for rank in ranks),
        max_length=length,
        max_batch_size=kv.max_batch_size,
        max_batch_input_tokens=config.max_batch_input_tokens,
        enable_in_flight_batching=config.enable_in_flight_batching,
        enable_prefix_caching=config.enable_prefix_caching,
        max_queue_size=config.max_queue_size,
        has_graphs=are_capturable(ops, device),
        ops=(*ops, choose_decode_step(config, model, encoding, devices)),
        has_shadow_head=config.shortlist_head,
        speculative_config=config.speculative_config,
        max_drafts=max_drafts,
        warning=_warning(device),
        ranks=tuple(ranks) if len(ranks) > 1 else (),
        memory=_memory_plan(config, kv, available, weight_bytes, workspace_bytes),
    )


def _memory_plan(
    config: EngineConfig, kv: KVPlan, available: int, weight_bytes: int, workspace_bytes: int
) -> MemoryPlan:
    return MemoryPlan(
        available_bytes=available,
        weight_bytes=weight_bytes,
        workspace_bytes=workspace_bytes,
        kv_bytes=kv.kv_bytes,
        naive_kv_bytes=kv.naive_bytes,
        page_size=config.kv_cache_page_size,
        num_pages=kv.num_pages,
        num_window_pages=kv.num_window_pages,
        num_full_length=kv.num_full_length,
        cache_format=config.kv_cache_format,
    )


def _batch_size(config: EngineConfig, device: torch.device) -> int:
    """As wished for; without a wish what a server of many users wants."""
    usual = DEFAULT_BATCH[device.type == "cuda"]
    return config.max_batch_size or min(usual, config.max_batch_input_tokens)


def _check_limits_of_ranks(config: EngineConfig) -> None:
    """Raises ConfigError for wishes that only one device could serve."""
    for name in FOR_ONE_DEVICE:
        if getattr(config, name):
            raise ConfigError(f"{name} is for one device; devices '{config.devices}' are more")


def _check_limits_of_kernels(config: EngineConfig, batch_size: int) -> None:
    """Raises ConfigError for wishes that only references could serve."""
    if config.kv_cache_page_size != PAGE_SIZE:
        raise ConfigError(
            f"kv_cache_page_size must be {PAGE_SIZE} on this GPU, where attention kernels run; "
            f"got {config.kv_cache_page_size}"
        )
    if batch_size > MAX_REQUESTS:
        raise ConfigError(
            f"max_batch_size may be {MAX_REQUESTS} at most on this GPU, where attention kernels "
            f"run; got {batch_size}"
        )


def _max_drafts(config: EngineConfig, batch_size: int, most_rows: int | None) -> int:
    """Rows for guesses beside those of all requests. Raises ConfigError if there is none.

    most_rows  that attention takes in a step; None = any number
    """
    wish = config.speculative_config
    if wish is None:
        return 0
    rows = min(config.max_batch_input_tokens, most_rows or config.max_batch_input_tokens)
    if rows <= batch_size:
        raise ConfigError(
            f"speculative_config: a step of up to {rows} rows has none for guesses beside "
            f"max_batch_size {batch_size}; lower that"
        )
    return min(rows - batch_size, MOST_DRAFTS, batch_size * wish.num_speculative_tokens)


def _kv_sizes(config: EngineConfig, model: ModelConfig) -> KVSizes:
    page_size = config.kv_cache_page_size
    of_token = TokenBytes.of(model, CACHE_DTYPES[config.kv_cache_format])
    return KVSizes(
        page_bytes=page_size * of_token.full,
        window_page_bytes=page_size * of_token.window,
        window=max_window(model),
        page_size=page_size,
    )


def max_window(model: ModelConfig) -> int:
    """Keys that the furthest-seeing sliding layer sees; 1 if there is no such layer."""
    return max((window for window in model.windows if window is not None), default=1)


def _length(config: EngineConfig, model: ModelConfig, sizes: KVSizes, budget: int) -> int:
    """As wished for; without a wish the model's, or what memory allows one request."""
    if config.max_length is None:
        return min(model.max_length, sizes.longest(budget) or model.max_length)
    if config.max_length > model.max_length:
        raise ConfigError(f"max_length {config.max_length} exceeds the model's {model.max_length}")
    return config.max_length


def _warning(device: torch.device) -> str | None:
    """A GPU without kernels runs, but slowly: nobody should have to find out from the speed."""
    why = None if device.type == "cpu" else why_no_kernels(device)
    return why and f"this GPU runs only references, which are slow: {why}"


def _too_little(
    config: EngineConfig, weight_bytes: int, workspace_bytes: int, available: int
) -> str:
    return (
        f"memory is short: the weights take {weight_bytes / 1e9:.2f} GB and a step "
        f"{workspace_bytes / 1e9:.2f} GB, but {available / 1e9:.2f} GB may be used "
        f"({config.device_memory_utilization:g} of what is free); use a device with more, mxfp4 "
        "instead of bfloat16, a lower max_batch_input_tokens, or free memory on it"
    )
