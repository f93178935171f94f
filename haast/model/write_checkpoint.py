"""Random weights -> a folder in one of the published layouts, streamed to disk."""

import json
import lzma
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from haast.config import ModelConfig
from haast.model.checkpoint import INDEX, CheckpointError
from haast.model.config_fields import config_fields
from haast.model.config_file import parse_model_config, read_model_config
from haast.model.layouts import HF_BF16, HF_MXFP4, ORIGINAL, Layout, Source
from haast.model.locate import locate_config, packaged_folder
from haast.model.random_weights import random_weight
from haast.model.safetensors_file import write_file
from haast.model.weights import Progress
from haast.mxfp4 import Mxfp4Weight

Target = Literal["hf", "original", "bf16"]
TARGETS: dict[Target, Layout] = {"hf": HF_MXFP4, "original": ORIGINAL, "bf16": HF_BF16}
SHARD_BYTES = 4 << 30
"""A file is closed before it would grow beyond this, unless one role alone is larger"""


def make_checkpoint(
    like: str | Path,
    out: Path,
    *,
    num_layers: int | None = None,
    num_experts: int | None = None,
    layout: Target = "hf",
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a checkpoint of random weights with the shapes of a real one.

    like      gpt-oss-20b, gpt-oss-120b, a config.json or a folder with one
    out       a folder that does not exist or is empty
    layout    hf (MXFP4), original (OpenAI's MXFP4) or bf16: the same weights for the same seed
    device    where numbers are drawn; the CPU if None
    progress  called with bytes written and bytes in all

    Writes config.json, the weights, tokenizer.json and tokenizer_config.json. Host memory stays
    below the largest role before it is dequantised plus 24 bytes times the elements of one
    expert's largest matrix (1.2 + 0.4 GB for gpt-oss).
    Raises CheckpointError (ConfigError for a config.json) if `like` is unknown, `out` is in use,
    the disk is too small or the config cannot be said in that layout's config.json.
    """
    target = TARGETS[layout]
    config = _resized(read_model_config(locate_config(like)), num_layers, num_experts)
    config_json = out / "config.json"
    spelled = config_fields(config, target)
    _check_nothing_is_lost(config, parse_model_config(spelled, config_json), target)
    sources = list(target.sources(config))
    _prepare_folder(out, sum(source.nbytes for source in sources))
    _write_json(config_json, spelled)
    _write_tokenizer(out)
    random = _RandomBytes(config, target, seed, device or torch.device("cpu"))
    _write_shards(out, target, sources, random, progress)


def _resized(config: ModelConfig, num_layers: int | None, num_experts: int | None) -> ModelConfig:
    """Layers beyond those there are continue the alternation of windows."""
    if num_layers is not None:
        windows = list(config.windows)
        while len(windows) < num_layers:
            windows.append(windows[-2:][0])
        config = replace(config, num_layers=num_layers, windows=tuple(windows[:num_layers]))
    return config if num_experts is None else replace(config, num_experts=num_experts)


def _check_nothing_is_lost(config: ModelConfig, read_back: ModelConfig, layout: Layout) -> None:
    names = [field.name for field in fields(config)]
    lost = [name for name in names if getattr(config, name) != getattr(read_back, name)]
    if lost:
        raise CheckpointError(
            f"{layout.name} layout: its config.json cannot express this model's {', '.join(lost)}"
        )


def _prepare_folder(out: Path, nbytes: int) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: exists and is not an empty folder; nothing was written")
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if free < nbytes:
        raise CheckpointError(f"{out}: {nbytes / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")


def _write_tokenizer(out: Path) -> None:
    packaged = packaged_folder("gpt-oss-20b")
    with lzma.open(packaged / "tokenizer.json.xz") as tokenizer:
        (out / "tokenizer.json").write_bytes(tokenizer.read())
    shutil.copyfile(packaged / "tokenizer_config.json", out / "tokenizer_config.json")


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_shards(
    out: Path,
    layout: Layout,
    sources: list[Source],
    random: "_RandomBytes",
    progress: Progress | None,
) -> None:
    total, done = sum(source.nbytes for source in sources), 0
    shards = split_into_shards(sources, SHARD_BYTES)
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = _shard_name(layout, number, len(shards))
        specs = [spec for source in shard for spec in source.tensors]
        weight_map.update({spec.name: name for spec in specs})
        for written in write_file(out / name, specs, random.chunks(shard), {"format": "pt"}):
            done += written
            if progress:
                progress(done, total)
    if "model.safetensors" not in weight_map.values():
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(out / INDEX, index)


def split_into_shards(sources: Iterable[Source], limit: int) -> list[list[Source]]:
    """Consecutive sources in files of at most `limit` bytes; a larger source has its own file."""
    shards: list[list[Source]] = []
    room = 0
    for source in sources:
        if not shards or source.nbytes > room:
            shards.append([])
            room = limit
        shards[-1].append(source)
        room -= source.nbytes
    return shards


def _shard_name(layout: Layout, number: int, count: int) -> str:
    """Hugging Face and OpenAI number their files; OpenAI's has a second dash, and one file none."""
    if layout is not ORIGINAL:
        return f"model-{number:05d}-of-{count:05d}.safetensors"
    return f"model--{number:05d}-of-{count:05d}.safetensors" if count > 1 else "model.safetensors"


@dataclass(frozen=True)
class _RandomBytes:
    """The tensors of a layout, drawn role by role and cut into chunks for the file."""

    config: ModelConfig
    layout: Layout
    seed: int
    device: torch.device

    def chunks(self, sources: Iterable[Source]) -> Iterator[Tensor]:
        for source in sources:
            weight = random_weight(self.config, source.role, source.layer, self.seed, self.device)
            if not isinstance(weight, Mxfp4Weight):
                yield weight.cpu()  # q, k and v are the rows of one tensor in this very order
            elif self.layout.encoding == "mxfp4":
                yield weight.values.cpu()
                yield weight.scales.cpu()
            else:
                for expert in range(self.config.num_experts):
                    yield weight[expert].dequantize(torch.bfloat16).T.contiguous().cpu()
