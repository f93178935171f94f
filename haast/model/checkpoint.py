"""A folder of weights: found, told apart and checked from its headers before any byte is loaded."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from haast.config import ModelConfig
from haast.model.config_file import read_json, read_model_config
from haast.model.layouts import ORIGINAL, Layout, TensorSpec, detect_layout
from haast.model.safetensors_file import CheckpointError, StoredTensor, read_header

__all__ = ["Checkpoint", "CheckpointError", "open_checkpoint"]

INDEX = "model.safetensors.index.json"
ORIGINAL_FOLDER = "original"
_OTHER_WEIGHTS = (".bin", ".gguf", ".pt", ".pth", ".ckpt", ".npz", ".onnx")


@dataclass(frozen=True)
class Checkpoint:
    """Weights that are complete and of the right shapes, still on disk."""

    folder: Path
    layout: Layout
    config: ModelConfig
    tensors: dict[str, StoredTensor]
    files: tuple[Path, ...]
    unused: str | None
    """What else the folder holds, or None"""
    tokenizer: Path | None
    """tokenizer.json"""
    chat_template: Path | None
    """chat_template.jinja"""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as stored."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def describe(self) -> str:
        """What was found, in one line."""
        where = f"{self.layout.name} layout in {_extent(self.folder, self.files)}"
        return f"{where}; not used: {self.unused}" if self.unused else where


def open_checkpoint(path: Path) -> Checkpoint:
    """Find the weights in a folder and check every tensor's name, shape and dtype.

    The folder itself is used if it holds Hugging Face's MXFP4 layout, else its sub-folder
    `original` if that has weights, else the folder itself. Files listed by
    model.safetensors.index.json count; without it, all *.safetensors of that folder.
    config.json and the tokenizer are looked for beside the weights, and for OpenAI's layout,
    which is published as a sub-folder, also one folder up.

    Raises CheckpointError (ConfigError for config.json) in one line: nothing there, no weights,
    broken or missing files, tensors that are missing, unknown, misshaped or mistyped.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    if not path.is_dir():
        raise CheckpointError(f"{path}: not a folder; name the folder that holds the weights")
    folder, unused = _choose(path)
    files = _weight_files(folder)
    if not files:
        raise CheckpointError(_nothing_found(folder))
    tensors = _read_headers(files)
    layout = detect_layout(tensors)
    config_path = _config_path(folder, layout)
    config = read_model_config(config_path)
    if layout is None:
        raise CheckpointError(
            f"{folder}: tensor names of no known layout, such as '{min(tensors, default='')}'; "
            "known are hf-mxfp4, original and hf-bf16"
        )
    _check_index(folder, tensors)
    _check(_Found(folder, config_path, layout, config, tensors))
    return Checkpoint(
        folder=folder,
        layout=layout,
        config=config,
        tensors=tensors,
        files=files,
        unused=unused,
        tokenizer=_beside(folder, layout, "tokenizer.json"),
        chat_template=_beside(folder, layout, "chat_template.jinja"),
    )


def _choose(path: Path) -> tuple[Path, str | None]:
    """The folder whose weights are used, and a word on the other one."""
    inner = path / ORIGINAL_FOLDER
    inner_files = _weight_files(inner) if inner.is_dir() else ()
    if not inner_files:
        return path, None
    files = _weight_files(path)
    if not files:
        return inner, None
    layout = detect_layout(_read_headers(files))
    if layout is not None and layout.encoding == "mxfp4":
        return path, _extent(inner, inner_files)
    return inner, _extent(path, files)


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """The files the index names, all of them present; without an index, all *.safetensors."""
    index = folder / INDEX
    if not index.exists():
        return tuple(sorted(folder.glob("*.safetensors")))
    files = [folder / name for name in sorted(set(_weight_map(index).values()))]
    for file in files:
        if not file.exists():
            raise CheckpointError(f"{index}: names {file.name}, which is not in {folder}")
    return tuple(files)


def _weight_map(index: Path) -> dict[str, str]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
        raise CheckpointError(f"{index}: 'weight_map' must map tensor names to file names")
    return names


def _read_headers(files: Iterable[Path]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for tensor in (tensor for file in files for tensor in read_header(file)):
        twin = tensors.setdefault(tensor.name, tensor)
        if twin is not tensor:
            raise CheckpointError(
                f"{tensor.file}: tensor '{tensor.name}' is also in {twin.file.name}"
            )
    return tensors


def _check_index(folder: Path, tensors: dict[str, StoredTensor]) -> None:
    index = folder / INDEX
    if not index.exists():
        return
    for name, file in _weight_map(index).items():
        if name not in tensors or tensors[name].file.name != file:
            raise CheckpointError(f"{index}: says {file} holds tensor '{name}', but it does not")


def _config_path(folder: Path, layout: Layout | None) -> Path:
    path = _beside(folder, layout, "config.json")
    if path is None:
        raise CheckpointError(f"{folder}: holds weights but no config.json")
    return path


def _beside(folder: Path, layout: Layout | None, name: str) -> Path | None:
    places = (folder, folder.resolve().parent) if layout is ORIGINAL else (folder,)
    return next((place / name for place in places if (place / name).is_file()), None)


def _nothing_found(folder: Path) -> str:
    others = sorted(
        str(file.relative_to(folder))
        for pattern in ("*", "*/*")
        for file in folder.glob(pattern)
        if file.suffix in _OTHER_WEIGHTS
    )
    inside = sorted({str(file.parent) for file in folder.glob("*/*.safetensors")})
    if inside:
        return f"{folder}: no safetensors files; name one of its sub-folders: {', '.join(inside)}"
    found = f", only {', '.join(others[:3])}" if others else ""
    return f"{folder}: no safetensors files{found}"


def _extent(folder: Path, files: tuple[Path, ...]) -> str:
    """Folder, number of files and their size."""
    nbytes = sum(file.stat().st_size for file in files)
    size = f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.2f} MB"
    return f"{folder} ({len(files)} file{'s' if len(files) > 1 else ''}, {size})"


@dataclass(frozen=True)
class _Found:
    """A folder's contents under comparison with what its config asks for."""

    folder: Path
    config_path: Path
    layout: Layout
    config: ModelConfig
    tensors: dict[str, StoredTensor]


def _check(found: _Found) -> None:
    """Compare what is stored with what the config asks for; CheckpointError at the first flaw."""
    _check_num_layers(found)
    specs = {
        spec.name: spec for source in found.layout.sources(found.config) for spec in source.tensors
    }
    missing = [name for name in specs if name not in found.tensors]
    if missing:
        raise CheckpointError(f"{found.folder}: tensor {_first(missing)} is missing")
    extra = [name for name in found.tensors if name not in specs]
    if extra:
        file = found.tensors[extra[0]].file
        raise CheckpointError(
            f"{file}: unknown tensor {_first(extra)}; the {found.layout.name} layout has none such"
        )
    for name, spec in specs.items():
        _check_tensor(found.tensors[name], spec, found.config_path)


def _check_num_layers(found: _Found) -> None:
    layers = {found.layout.layer_of(name) for name in found.tensors} - {None}
    if len(layers) != found.config.num_layers:
        raise CheckpointError(
            f"{found.config_path}: num_hidden_layers is {found.config.num_layers}, "
            f"but the files in {found.folder} hold tensors of {len(layers)} layers"
        )


def _check_tensor(stored: StoredTensor, spec: TensorSpec, config_path: Path) -> None:
    what = f"{stored.file}: tensor '{stored.name}'"
    if stored.dtype != spec.dtype:
        raise CheckpointError(f"{what} is {stored.dtype}, expected {spec.dtype}")
    if stored.shape == spec.shape:
        return
    message = f"{what} is {list(stored.shape)}, expected {list(spec.shape)}"
    if len(stored.shape) == len(spec.shape):
        pairs = zip(stored.shape, spec.axes, strict=True)
        key = next(axis.key for size, axis in pairs if size != axis.size)
        message += f"; does {_spelled(key, config_path)} in {config_path} fit these weights?"
    raise CheckpointError(message)


def _spelled(key: str, config_path: Path) -> str:
    """The key as that config.json writes it."""
    return key if key in read_json(config_path) else re.sub("^num_local_", "num_", key)


def _first(names: list[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"'{names[0]}'{more}"
