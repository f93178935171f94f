"""Which network class an `architectures` name of a config.json stands for."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from haast.errors import HaastError
from haast.model.gpt_oss import GptOss


class ArchitectureError(HaastError):
    """An architecture nobody registered, or a module that does not register one properly."""


@dataclass(frozen=True)
class Architecture:
    """A network that can be loaded.

    name   as in the checkpoint's config.json, `architectures`
    model  GptOss or a subclass, called with (config, parameters, max_length), and with the ranks
           besides if there are several; the former two are then of this rank's share
    """

    name: str
    model: type[GptOss]


ARCHITECTURES = (Architecture("GptOssForCausalLM", GptOss),)


def find_architecture(name: str, custom_modules: Sequence[str] = ()) -> Architecture:
    """The architecture of that name; a custom module's takes precedence over ours.

    custom_modules  paths of Python files, or `folder:module`, that export ARCHITECTURES
    Raises ArchitectureError naming what is known, or the module and what is wrong with it.
    """
    known = {a.name: a for a in ARCHITECTURES}
    for path in custom_modules:
        known |= {a.name: a for a in _exported(path)}
    if name not in known:
        raise ArchitectureError(
            f"architecture '{name}' is not known; known are {', '.join(known)}; "
            "--custom-architectures adds others"
        )
    return known[name]


def _exported(path: str) -> list[Architecture]:
    exported = getattr(_import(path), "ARCHITECTURES", None)
    if not isinstance(exported, list | tuple) or not exported:
        raise ArchitectureError(f"{path}: must export ARCHITECTURES, a list of Architecture")
    for entry in exported:
        if not isinstance(entry, Architecture):
            raise ArchitectureError(f"{path}: ARCHITECTURES holds {entry!r}, not an Architecture")
    return list(exported)


def _import(path: str) -> ModuleType:
    folder, _, module = path.rpartition(":")
    file = Path(folder, *module.split(".")) if folder else Path(path)
    candidates = (file, file.with_suffix(".py"), file / "__init__.py")
    source = next((c for c in candidates if c.suffix == ".py" and c.is_file()), None)
    if source is None:
        raise ArchitectureError(f"custom architecture {path}: no such Python module")
    name = f"haast_custom_{source.stem}"
    spec = importlib.util.spec_from_file_location(name, source)
    assert spec is not None and spec.loader is not None, source
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded
