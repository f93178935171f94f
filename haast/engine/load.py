"""Wishes -> a model that is ready to generate."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from haast.config import ConfigError, Encoding, EngineConfig, ModelConfig, Plan
from haast.engine.device import pick_device
from haast.engine.generator import Generator
from haast.engine.plan import Source, make_plan
from haast.model.checkpoint import open_checkpoint
from haast.model.config_file import read_model_config
from haast.model.gpt_oss import GptOss
from haast.model.locate import PACKAGED_CONFIGS, locate_model, packaged_folder
from haast.model.random_weights import random_parameters
from haast.model.registry import find_architecture
from haast.model.weights import Progress, load_parameters, resolve_encoding

PACKAGED_TOKENIZER = packaged_folder("gpt-oss-20b") / "tokenizer.json.xz"


@dataclass(frozen=True)
class Engine:
    """A loaded model with all that was decided about it."""

    generator: Generator
    plan: Plan
    model: ModelConfig
    found: str
    """which weights were found and from which files, in one line"""
    tokenizer: Path
    load_s: float


def load_engine(config: EngineConfig, progress: Progress | None = None) -> Engine:
    """Find, check, plan and load. Everything that can be wrong is said before bytes are read.

    Raises a HaastError in one line.
    """
    started = time.perf_counter()
    load = _load_dummy if config.load_format == "dummy" else _load_checkpoint
    try:
        model, plan, found, tokenizer = load(config, progress)
        generator = Generator(model, plan)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the device ran out of memory while loading ({str(error).splitlines()[0]}); "
            "lower device_memory_utilization or max_length, or free memory on the device"
        ) from None
    return Engine(
        generator=generator,
        plan=plan,
        model=model.config,
        found=found,
        tokenizer=tokenizer,
        load_s=time.perf_counter() - started,
    )


def _load_checkpoint(
    config: EngineConfig, progress: Progress | None
) -> tuple[GptOss, Plan, str, Path]:
    checkpoint = open_checkpoint(locate_model(config.model_path))
    if checkpoint.tokenizer is None:
        raise ConfigError(f"{checkpoint.folder}: holds weights but no tokenizer.json")
    device = pick_device(config.devices)
    encoding = resolve_encoding(config.quantization_encoding, checkpoint)
    names = tuple(file.name for file in checkpoint.files)
    source = Source(checkpoint.folder, checkpoint.layout.name, names)
    architecture = find_architecture(checkpoint.config.architecture, config.custom_architectures)
    plan = make_plan(config, checkpoint.config, source, encoding, device)
    parameters = load_parameters(checkpoint, encoding, device, progress)
    model = architecture.model(checkpoint.config, parameters, plan.max_length)
    return model, plan, checkpoint.describe(), checkpoint.tokenizer


def _load_dummy(config: EngineConfig, progress: Progress | None) -> tuple[GptOss, Plan, str, Path]:
    """Random weights for a config.json, made on the device; `progress` has nothing to tell."""
    folder = _config_folder(config.model_path)
    model_config = read_model_config(folder / "config.json")
    tokenizer = folder / "tokenizer.json"
    device = pick_device(config.devices)
    encoding: Encoding = "bfloat16" if config.quantization_encoding == "bfloat16" else "mxfp4"
    architecture = find_architecture(model_config.architecture, config.custom_architectures)
    plan = make_plan(config, model_config, Source(folder, "dummy", ()), encoding, device)
    parameters = random_parameters(model_config, encoding, device)
    model = architecture.model(model_config, parameters, plan.max_length)
    found = f"random weights for {folder / 'config.json'}"
    return model, plan, found, tokenizer if tokenizer.is_file() else PACKAGED_TOKENIZER


def _config_folder(path: Path | None) -> Path:
    if path is not None and str(path) in PACKAGED_CONFIGS:
        return packaged_folder(str(path))
    return locate_model(path)
