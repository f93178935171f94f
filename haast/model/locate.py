"""What a model path may be: a folder, a model of the local Hugging Face cache, or the demo."""

import os
import re
from importlib.resources import files
from pathlib import Path

from haast.model.safetensors_file import CheckpointError

DEMO = "haast-tiny"
PACKAGED_CONFIGS = ("gpt-oss-20b", "gpt-oss-120b")


def demo_folder() -> Path:
    """The checkpoint that comes with the package."""
    return Path(str(files("haast") / "demo" / DEMO))


def packaged_folder(name: str) -> Path:
    """config.json (and for 20b the tokenizer) of a published model, without weights."""
    return Path(str(files("haast") / "data" / name))


def locate_config(like: str | Path) -> Path:
    """The config.json of gpt-oss-20b, gpt-oss-120b, of a folder, or that file itself.

    Raises CheckpointError if it is none of these.
    """
    path = packaged_folder(str(like)) if str(like) in PACKAGED_CONFIGS else Path(like)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        known = " nor ".join(PACKAGED_CONFIGS)
        raise CheckpointError(f"{like}: neither {known} nor a config.json nor a folder with one")
    return path


def locate_model(path: Path | None) -> Path:
    """The folder of a model; nothing is downloaded.

    path  None = the bundled demo; a folder; or owner/name of a model that Hugging Face's tools
          have already put into their cache
    Raises CheckpointError that says how to get the model.
    """
    if path is None:
        return demo_folder()
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)):
        return path
    cached = _cached_snapshot(str(path))
    if cached is None:
        raise CheckpointError(
            f"{path}: no such folder, and not in the Hugging Face cache {_cache_folder()}; "
            f"fetch it with: hf download {path}"
        )
    return cached


def _cache_folder() -> Path:
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()


def _cached_snapshot(model_id: str) -> Path | None:
    folder = _cache_folder() / f"models--{model_id.replace('/', '--')}"
    main = folder / "refs" / "main"
    if not main.is_file():
        return None
    snapshot = folder / "snapshots" / main.read_text().strip()
    return snapshot if snapshot.is_dir() else None
