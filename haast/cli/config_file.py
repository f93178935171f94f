"""--config-file: options from a YAML file, below the command line and HAAST_* variables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from haast.cli.options import FILE

F = TypeVar("F", bound=Callable[..., Any])


def config_file_option(command: F) -> F:
    """Adds the option; keys of the file are names of options, with - or _ between words."""
    return click.option(
        "--config-file",
        "--config",
        type=FILE,
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="YAML file with options by name; the command line and HAAST_* variables win.",
    )(command)


def _read(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        found = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise click.UsageError(f"{path} must hold `name: value` lines; got {type(found).__name__}")
    names = _names(context.command)
    unknown = [key for key in found if _plain(key) not in names]
    if unknown:
        raise click.UsageError(f"{path}: no option {unknown[0]!r}; see --help")
    first: dict[str, Any] = {}
    for key, value in found.items():
        other = first.setdefault(names[_plain(key)], key)
        if found[other] != value:
            raise click.UsageError(f"{path}: {other} is {found[other]} and {key} is {value}")
    context.default_map = {name: found[key] for name, key in first.items()}


def _names(command: click.Command) -> dict[str, str]:
    """What an option may be called in a file -> its parameter."""
    options = [p for p in command.params if isinstance(p, click.Option) and p.expose_value]
    return {
        _plain(name): str(option.name)
        for option in options
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("--") and not name.startswith("--no-")
    }


def _plain(name: object) -> str:
    return str(name).removeprefix("--").replace("-", "_")
