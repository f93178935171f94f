"""Wishes -> a plan, from headers alone; parameters -> an engine."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from haast.config import ConfigError, Encoding, EngineConfig, MemoryPlan, ModelConfig, Plan
from haast.engine.device import pick_devices
from haast.engine.drafts import Drafter
from haast.engine.engine import Engine
from haast.engine.kv_pages import KVPages
from haast.engine.limits import Limits
from haast.engine.masks import Grammars
from haast.engine.pages import PagePool
from haast.engine.place import Place
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
from haast.parallel.collectives import Ranks

PACKAGED_TOKENIZER = packaged_folder("gpt-oss-20b") / "tokenizer.json.xz"


@dataclass(frozen=True)
class Prepared:
    """A model that was found, checked and planned, with no byte of its weights read yet."""

    plan: Plan
    found: str
    """which weights were found and from which files, in one line"""
    tokenizer: Path
    config: ModelConfig
    """of the whole network"""
    architecture: Architecture
    place: Place
    make_parameters: Callable[[Progress | None], Parameters]

    def model(self, parameters: Parameters, ranks: Ranks | None) -> GptOss:
        """The network, or what one of several ranks has of it."""
        local, length = self.place.share(self.config).local, self.plan.max_length
        together = () if ranks is None else (ranks,)
        return self.architecture.model(local, parameters, length, *together)


def prepare(config: EngineConfig, rank: int = 0, plan: Plan | None = None) -> Prepared:
    """Find, check and plan. What is wrong with wishes or files is said here, from headers alone.

    rank  of this process among those that the wished devices make
    plan  of rank 0, if this is another
    Raises a HaastError in one line.
    """
    place = Place(config, pick_devices(config.devices), rank)
    how = _prepare_dummy if config.load_format == "dummy" else _prepare_checkpoint
    return how(place, plan)


@dataclass(frozen=True)
class Loaded:
    """A model with its weights, and the engine that runs requests on it."""

    model: GptOss
    runner: TorchRunner
    engine: Engine


def out_of_memory(error: torch.OutOfMemoryError) -> str:
    """What to say of one while loading."""
    return (
        f"the device ran out of memory while loading ({str(error).splitlines()[0]}); "
        "lower device_memory_utilization or max_length, or free memory on the device"
    )


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
    runner = make_runner(model, plan)
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


def make_runner(model: GptOss, plan: Plan) -> TorchRunner:
    """Over a model, with the KV cache that the plan names."""
    memory = plan.memory
    return TorchRunner(
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


def _cache_dtype(memory: MemoryPlan, model: GptOss) -> torch.dtype:
    is_as_computed = memory.cache_format == "bfloat16"
    return model.dtype if is_as_computed else CACHE_DTYPES[memory.cache_format]


def _prepare_checkpoint(place: Place, plan: Plan | None) -> Prepared:
    config, device = place.config, place.device
    checkpoint = open_checkpoint(locate_model(config.model_path))
    if checkpoint.tokenizer is None:
        raise ConfigError(f"{checkpoint.folder}: holds weights but no tokenizer.json")
    encoding = resolve_encoding(config.quantization_encoding, checkpoint)
    names = tuple(file.name for file in checkpoint.files)
    source = Source(checkpoint.folder, checkpoint.layout.name, names)
    plan = plan or make_plan(config, checkpoint.config, source, encoding, *place.devices)
    return Prepared(
        plan=plan,
        found=checkpoint.describe(),
        tokenizer=checkpoint.tokenizer,
        config=checkpoint.config,
        architecture=_architecture(config, checkpoint.config),
        place=place,
        make_parameters=partial(
            load_parameters,
            checkpoint,
            encoding,
            device,
            is_swizzled=plan.is_swizzled,
            share=place.share(checkpoint.config),
        ),
    )


def _prepare_dummy(place: Place, plan: Plan | None) -> Prepared:
    """Random weights for a config.json, made on the device; a progress bar has nothing to tell."""
    config = place.config
    folder = _config_folder(config.model_path)
    model_config = read_model_config(folder / "config.json")
    tokenizer = folder / "tokenizer.json"
    encoding: Encoding = "bfloat16" if config.quantization_encoding == "bfloat16" else "mxfp4"
    source = Source(folder, "dummy", ())
    plan = plan or make_plan(config, model_config, source, encoding, *place.devices)
    return Prepared(
        plan=plan,
        found=f"random weights for {folder / 'config.json'}",
        tokenizer=tokenizer if tokenizer.is_file() else PACKAGED_TOKENIZER,
        config=model_config,
        architecture=_architecture(config, model_config),
        place=place,
        make_parameters=lambda _progress: random_parameters(
            model_config,
            encoding,
            place.device,
            is_swizzled=plan.is_swizzled,
            share=place.share(model_config),
        ),
    )


def _architecture(config: EngineConfig, model: ModelConfig) -> Architecture:
    return find_architecture(model.architecture, config.custom_architectures)


def _config_folder(path: Path | None) -> Path:
    if path is not None and str(path) in PACKAGED_CONFIGS:
        return packaged_folder(str(path))
    return locate_model(path)
