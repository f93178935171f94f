"""Wishes -> an engine that is ready to generate."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from haast.config import ConfigError, Encoding, EngineConfig, MemoryPlan, ModelConfig, Plan
from haast.engine.device import pick_device
from haast.engine.drafts import Drafter
from haast.engine.engine import Engine
from haast.engine.kv_pages import KVPages
from haast.engine.limits import Limits
from haast.engine.masks import Grammars
from haast.engine.pages import PagePool
from haast.engine.plan import Source, make_plan, max_window
from haast.engine.runner import TorchRunner
from haast.model.checkpoint import open_checkpoint
from haast.model.config_file import read_model_config
from haast.model.gpt_oss import GptOss
from haast.model.kv_cache import CACHE_DTYPES, KVCache
from haast.model.locate import PACKAGED_CONFIGS, locate_model, packaged_folder
from haast.model.parameters import Parameters
from haast.model.random_weights import random_parameters
from haast.model.registry import Architecture, find_architecture
from haast.model.weights import Progress, load_parameters, resolve_encoding

PACKAGED_TOKENIZER = packaged_folder("gpt-oss-20b") / "tokenizer.json.xz"


@dataclass(frozen=True)
class Prepared:
    """A model that was found, checked and planned, with no byte of its weights read yet."""

    plan: Plan
    found: str
    """which weights were found and from which files, in one line"""
    tokenizer: Path
    config: ModelConfig
    architecture: Architecture
    make_parameters: Callable[[Progress | None], Parameters]


def prepare(config: EngineConfig) -> Prepared:
    """Find, check and plan. What is wrong with wishes or files is said here, from headers alone.

    Raises a HaastError in one line.
    """
    return _prepare_dummy(config) if config.load_format == "dummy" else _prepare_checkpoint(config)


@dataclass(frozen=True)
class Loaded:
    """A model with its weights, and the engine that runs requests on it."""

    model: GptOss
    runner: TorchRunner
    engine: Engine


def load(
    prepared: Prepared,
    stop_ids: frozenset[int],
    progress: Progress | None = None,
    grammars: Grammars | None = None,
) -> Loaded:
    """Read (or make) the weights; the engine is then ready to generate.

    stop_ids  the model's own stop tokens
    grammars  for requests that have one
    Raises CheckpointError for flaws only the bytes can show, ConfigError if memory runs out.
    """
    try:
        parameters = prepared.make_parameters(progress)
        model = prepared.architecture.model(prepared.config, parameters, prepared.plan.max_length)
        return assemble(model, prepared.plan, stop_ids, grammars=grammars)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the device ran out of memory while loading ({str(error).splitlines()[0]}); "
            "lower device_memory_utilization or max_length, or free memory on the device"
        ) from None


def assemble(
    model: GptOss,
    plan: Plan,
    stop_ids: frozenset[int],
    max_in_flight: int = 2,
    grammars: Grammars | None = None,
) -> Loaded:
    """An engine over a model, with the KV cache that the plan names; see `Engine`."""
    memory = plan.memory
    if plan.has_shadow_head:
        model.cast_shadow()
    runner = TorchRunner(
        model,
        KVCache.empty(
            model.config,
            memory.num_pages,
            memory.num_window_pages,
            _cache_dtype(memory, model),
            model.device,
            memory.page_size,
        ),
        max_batch_size=plan.max_batch_size,
        max_batch_input_tokens=plan.max_batch_input_tokens,
        max_pages=-(-plan.max_length // memory.page_size),
        page_size=memory.page_size,
        pins=plan.pins,
        has_graphs=plan.has_graphs,
        max_drafts=plan.max_drafts,
    )
    kv = KVPages(
        PagePool(memory.num_pages, "full"),
        PagePool(memory.num_window_pages, "sliding"),
        memory.page_size,
        max_window(model.config),
        plan.enable_prefix_caching,
    )
    limits = Limits(
        max_length=plan.max_length,
        max_batch_size=plan.max_batch_size,
        max_batch_input_tokens=plan.max_batch_input_tokens,
        max_queue_size=plan.max_queue_size,
        enable_in_flight_batching=plan.enable_in_flight_batching,
    )
    vocab_size = model.config.vocab_size
    wish = plan.speculative_config
    drafter = None if wish is None else Drafter(wish, plan.max_drafts, memory.page_size)
    engine = Engine(runner, kv, limits, vocab_size, stop_ids, max_in_flight, grammars, drafter)
    return Loaded(model, runner, engine)


def _cache_dtype(memory: MemoryPlan, model: GptOss) -> torch.dtype:
    is_as_computed = memory.cache_format == "bfloat16"
    return model.dtype if is_as_computed else CACHE_DTYPES[memory.cache_format]


def _prepare_checkpoint(config: EngineConfig) -> Prepared:
    checkpoint = open_checkpoint(locate_model(config.model_path))
    if checkpoint.tokenizer is None:
        raise ConfigError(f"{checkpoint.folder}: holds weights but no tokenizer.json")
    device = pick_device(config.devices)
    encoding = resolve_encoding(config.quantization_encoding, checkpoint)
    names = tuple(file.name for file in checkpoint.files)
    source = Source(checkpoint.folder, checkpoint.layout.name, names)
    plan = make_plan(config, checkpoint.config, source, encoding, device)
    return Prepared(
        plan=plan,
        found=checkpoint.describe(),
        tokenizer=checkpoint.tokenizer,
        config=checkpoint.config,
        architecture=_architecture(config, checkpoint.config),
        make_parameters=partial(
            load_parameters, checkpoint, encoding, device, is_swizzled=plan.is_swizzled
        ),
    )


def _prepare_dummy(config: EngineConfig) -> Prepared:
    """Random weights for a config.json, made on the device; a progress bar has nothing to tell."""
    folder = _config_folder(config.model_path)
    model_config = read_model_config(folder / "config.json")
    tokenizer = folder / "tokenizer.json"
    device = pick_device(config.devices)
    encoding: Encoding = "bfloat16" if config.quantization_encoding == "bfloat16" else "mxfp4"
    plan = make_plan(config, model_config, Source(folder, "dummy", ()), encoding, device)
    return Prepared(
        plan=plan,
        found=f"random weights for {folder / 'config.json'}",
        tokenizer=tokenizer if tokenizer.is_file() else PACKAGED_TOKENIZER,
        config=model_config,
        architecture=_architecture(config, model_config),
        make_parameters=lambda _progress: random_parameters(
            model_config, encoding, device, is_swizzled=plan.is_swizzled
        ),
    )


def _architecture(config: EngineConfig, model: ModelConfig) -> Architecture:
    return find_architecture(model.architecture, config.custom_architectures)


def _config_folder(path: Path | None) -> Path:
    if path is not None and str(path) in PACKAGED_CONFIGS:
        return packaged_folder(str(path))
    return locate_model(path)
