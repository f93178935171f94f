"""What the documents name exists: paths, commands and their flags, symbols, links, targets."""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import make_tables
import pytest

from haast.__main__ import COMMANDS, cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "LOG.md", "CHANGELOG.md", "THIRD_PARTY.md")
DOCUMENTS += ("docs/serve.md", "docs/clients.md", "docs/method.md", "docs/scale.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
SPAN = re.compile(r"`([^`]+)`")
WORD = re.compile(r"(?<![\w./~-])[\w.-][\w./-]*")
FILE = re.compile(r".*\w\.(py|md|toml|sh|svg|json|jsonl|jinja|cu|xz)")
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
PLACEHOLDER = re.compile(r"[A-Z]+|[A-Z]+/.*")
SYMBOL = re.compile(r"(?<!/)\bhaast(?:\.\w+)+")
ENTRIES = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
NAMES = {path.name for folder in ("haast", "tools", "tests") for path in (ROOT / folder).rglob("*")}


def fences(text: str, language: str | None = None) -> list[str]:
    return [body for lang, body in FENCE.findall(text) if language in (None, lang)]


def spans(text: str) -> list[str]:
    """Inline code; a span may be wrapped."""
    return [" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text))]


def is_path(word: str) -> bool:
    """Starts at an entry of the repository, or looks like a file of ours."""
    first, *rest = word.split("/")
    return bool(rest and first in ENTRIES) or (bool(FILE.fullmatch(word)) and word[0] not in "./-")


def exists(word: str) -> bool:
    """As a path from the root; a bare file name may also be that of a file deeper down."""
    return (ROOT / word).exists() or ("/" not in word and word in NAMES)


def missing_paths(text: str) -> list[str]:
    code = [*fences(text), *spans(text)]
    words = {word.rstrip(".") for part in code for word in WORD.findall(part)}
    words = {word for word in words if is_path(word) and not PLACEHOLDER.fullmatch(word)}
    return sorted(word for word in words if not exists(word))


def commands(text: str) -> list[str]:
    """Everything that one might type: `haast ...`."""
    lines = [line for body in fences(text) for line in body.replace("\\\n", " ").splitlines()]
    found = [line.strip() for line in [*lines, *spans(text)]]
    return [line for line in found if re.match(r"haast [a-z-]", line)]


def problem_of(line: str) -> str | None:
    """What click says against a command; a required option may be left out in running text."""
    _, name, *arguments = shlex.split(line, comments=True)
    if name.startswith("-"):
        name, arguments = None, [name, *arguments]
    if name is not None and name not in COMMANDS:
        return f"{line}: no command {name}"
    command = cli if name is None else import_module(COMMANDS[name]).command
    if isinstance(command, click.Group) and arguments and arguments[0] in command.commands:
        name = arguments.pop(0)
        command = command.commands[name]
    try:
        command.make_context(name or "haast", [a for a in arguments if a != "..."])
    except click.exceptions.Exit:
        pass
    except click.MissingParameter:
        pass
    except click.UsageError as error:
        return f"{line}: {error.format_message()}"
    return None


def known_flags() -> set[str]:
    every = [cli, *(import_module(module).command for module in COMMANDS.values())]
    every += [c for group in every[1:] for c in getattr(group, "commands", {}).values()]
    options = [option for c in every for option in c.params]
    return {flag for o in options for flag in (*o.opts, *o.secondary_opts)} | {"--help"}


def unknown_flags(text: str) -> list[str]:
    """Flags of ours that inline code names on their own, like `--json`."""
    words = [span.split()[0].split("=")[0] for span in spans(text) if span.startswith("--")]
    return sorted(set(words) - known_flags())


def resolves(symbol: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = symbol.split(".")
    for size in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:size]))
        except ModuleNotFoundError:
            continue
        for name in parts[size:]:
            fields = getattr(found, "__dataclass_fields__", {})
            if not hasattr(found, name) and name not in fields:
                return False
            found = getattr(found, name, None)
        return True
    return False


def unknown_symbols(text: str) -> list[str]:
    code = "\n".join([*fences(text), *spans(text)])
    named = set(SYMBOL.findall(code))
    for body in fences(text, "python"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "haast":
                named |= {f"{node.module}.{alias.name}" for alias in node.names}
    return sorted(symbol for symbol in named if not resolves(symbol))


def broken_links(text: str, folder: Path = ROOT) -> list[str]:
    links = [link.strip() for link in LINK.findall(FENCE.sub("", text))]
    return [link for link in links if "://" not in link and not (folder / link).exists()]


def unknown_targets(text: str) -> list[str]:
    """`make ...` that the Makefile does not have."""
    lines = [*spans(text), *(line for body in fences(text) for line in body.splitlines())]
    targets = {m[1] for line in lines if (m := re.match(r"make ([a-z-]+)\b", line))}
    known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    return sorted(targets - set(known))


CHECKS = {
    "paths": missing_paths,
    "commands": lambda text: [p for line in commands(text) if (p := problem_of(line))],
    "flags": unknown_flags,
    "symbols": unknown_symbols,
    "links": broken_links,
    "targets": unknown_targets,
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_are_there(document):
    assert len((ROOT / document).read_text()) > 200


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_exists(document, check):
    path = ROOT / document
    folder = (path.parent,) if check is broken_links else ()
    assert check(path.read_text(), *folder) == []


def test_the_readme_names_enough_to_check():
    text = (ROOT / "README.md").read_text()
    assert len(commands(text)) >= 5 and LINK.findall(text) and fences(text, "python")
    assert {shlex.split(line)[1] for line in commands(text)} >= set(COMMANDS)


@pytest.mark.parametrize("path", sorted((ROOT / "haast").rglob("*.py")), ids=lambda path: path.name)
def test_symbols_in_docstrings_resolve(path):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kinds)]
    named = {s for n in nodes for s in SYMBOL.findall(ast.get_docstring(n) or "")}
    assert [symbol for symbol in sorted(named) if not resolves(symbol)] == []


PLANTED = """
![a picture](docs/gone.svg), [a page](README.md), [elsewhere](https://example.org/x.md)
`tools/gone.py`, `haast/ops/dispatch.py`, `dispatch.py`, `gone.py`, `openai/gpt-oss-20b`, `DIR/x.py`
`--gone`, `--json`, `--plot`, `haast bench moe --gone`,
`haast generate --prompt x --gone`, `haast gone`, `haast make-checkpoint`
`haast.ops.pin`, `haast.ops.gone`, `haast.config.Plan.device`, `haast.gone`, `make x`
```
haast generate --temperature warm --prompt x   # python tools/lost.py
haast coherence --json
make test
```
```python
from haast import LLM, Gone
```
"""
FOUND = {
    "paths": ["gone.py", "tools/gone.py", "tools/lost.py"],
    "flags": ["--gone"],
    "symbols": ["haast.Gone", "haast.gone", "haast.ops.gone"],
    "links": ["docs/gone.svg"],
    "targets": ["x"],
}


@pytest.mark.parametrize("check", FOUND)
def test_planted_mistakes_are_found(check):
    assert CHECKS[check](PLANTED) == FOUND[check]


def test_planted_commands_are_found():
    found = CHECKS["commands"](PLANTED)
    assert [p.split(": ", 1)[0] for p in found] == [
        "haast generate --temperature warm --prompt x   # python tools/lost.py",
        "haast bench moe --gone",
        "haast generate --prompt x --gone",
        "haast gone",
    ]
    assert "No such option" in found[1] and "No such option" in found[2]
    assert "no command gone" in found[3]


def test_the_table_is_what_the_results_say():
    text = (ROOT / "README.md").read_text()
    assert make_tables.with_tables(text) == text
    faster = text.replace(" tokens/s | ", "0 tokens/s | ", 1)
    assert faster != text and make_tables.with_tables(faster) == text
