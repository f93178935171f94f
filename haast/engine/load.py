"""Wishes -> a model that is ready to generate."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from haast.config import ConfigError, Encoding, EngineConfig, ModelConfig, Plan
from haast.engine.device import pick_device
from haast.engine.generator import Generator
from haast.engine.plan import Source, make_plan
from haast.model.checkpoint import open_checkpoint
from haast.model.config_file import read_model_config
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


def load_generator(prepared: Prepared, progress: Progress | None = None) -> Generator:
    """Read (or make) the weights; the model is then ready to generate.

    Raises CheckpointError for flaws only the bytes can show, ConfigError if memory runs out.
    """
    try:
        parameters = prepared.make_parameters(progress)
        model = prepared.architecture.model(prepared.config, parameters, prepared.plan.max_length)
        return Generator(model, prepared.plan)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the device ran out of memory while loading ({str(error).splitlines()[0]}); "
            "lower device_memory_utilization or max_length, or free memory on the device"
        ) from None


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
