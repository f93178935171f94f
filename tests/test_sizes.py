"""Files, functions and signatures stay small, and what is public says what it does."""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_FILE_LINES = 250
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8
SELF_EXPLANATORY_LINES = 5
MIN_TEST_FILES = 35
EXCEPTIONS: dict[str, str] = {}
"""`path` or `path:name` -> why it may exceed a limit; an entry that is no longer needed fails"""

SOURCES = sorted([*(ROOT / "haast").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines_of(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1


def num_parameters(function: ast.FunctionDef) -> int:
    """Named ones, without self and cls; *args and **options are one group each and not counted."""
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    return len(names[names[:1] in (["self"], ["cls"]) :]) + len(function.args.kwonlyargs)


def public(body: list[ast.stmt]) -> list[ast.stmt]:
    """Public functions and classes of a module, and public methods of those classes."""
    found = []
    for node in body:
        if isinstance(node, (*FUNCTION, ast.ClassDef)) and not node.name.startswith("_"):
            found.append(node)
            found += public(node.body) if isinstance(node, ast.ClassDef) else []
    return found


def needs_docstring(node: ast.stmt) -> bool:
    """Five lines, or one statement however it is wrapped, explain themselves."""
    return lines_of(node) > SELF_EXPLANATORY_LINES and len(node.body) > 1


def too_large(source: str, path: str) -> list[str]:
    """What of a file exceeds a limit."""
    found = [path] if len(source.splitlines()) > MAX_FILE_LINES else []
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTION)]
    found += [f"{path}:{f.name}" for f in functions if lines_of(f) > MAX_FUNCTION_LINES]
    signatures = [f for f in public(tree.body) if isinstance(f, FUNCTION)]
    return found + [f"{path}:{f.name}" for f in signatures if num_parameters(f) > MAX_PARAMETERS]


def undocumented(source: str) -> list[str]:
    """Public names of a file that need a docstring and have none."""
    nodes = public(ast.parse(source).body)
    return [n.name for n in nodes if needs_docstring(n) and not ast.get_docstring(n)]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_limits(path):
    found = too_large(path.read_text(), name_of(path))
    assert [entry for entry in found if entry not in EXCEPTIONS] == []


def test_exceptions_are_needed_and_have_reasons():
    found = {e for path in SOURCES for e in too_large(path.read_text(), name_of(path))}
    assert set(EXCEPTIONS) <= found and all(EXCEPTIONS.values())


@pytest.mark.parametrize("path", sorted((ROOT / "haast").rglob("*.py")), ids=name_of)
def test_what_is_public_has_a_docstring(path):
    assert undocumented(path.read_text()) == []


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_test_files(path):
    """Small, and every test in them runs: none is shadowed by a later one of its name."""
    source = path.read_text()
    assert len(source.splitlines()) <= MAX_FILE_LINES
    body = ast.parse(source).body
    names = Counter(node.name for node in body if isinstance(node, FUNCTION))
    assert any(name.startswith("test_") for name in names)
    assert [name for name, count in names.items() if count > 1] == []


def test_collection():
    """Every test file is where pytest looks, in a package if another has its name."""
    assert len(TESTS) >= MIN_TEST_FILES, [name_of(path) for path in TESTS]
    for folder in {path.parent for path in TESTS} - {ROOT / "tests"}:
        assert (folder / "__init__.py").is_file(), folder
    assert not list((ROOT / "tests").rglob("*_test.py"))


LONG = "def f(a):\n" + "    a += 1\n" * 60
WIDE = "def f(a, b, c, d, *, e, g, h, i, j): ...\n"
METHOD = "class C:\n    def f(self, a, b, c, d, e, g, h, i): ...\n"


def test_the_limits_are_exact():
    assert too_large(LONG, "x.py") == ["x.py:f"]
    assert too_large(LONG.replace("    a += 1\n", "", 1), "x.py") == []
    assert too_large("x = 1\n" * 251, "x.py") == ["x.py"]
    assert too_large("x = 1\n" * 250, "x.py") == []
    assert too_large(WIDE, "x.py") == ["x.py:f"]
    assert too_large(WIDE.replace(", j", ", **j"), "x.py") == too_large(METHOD, "x.py") == []


def test_a_missing_docstring_is_found():
    body = "".join(f"    a{i} = {i}\n" for i in range(5))
    assert undocumented(f"def f():\n{body}") == undocumented(f"class f:\n{body}") == ["f"]
    assert undocumented(f'def f():\n    """Why."""\n{body}') == []
    assert undocumented(f"def _f():\n{body}") == []
    assert (
        undocumented("def f():\n    return g(\n        1,\n        2,\n        3,\n    )\n") == []
    )
    assert undocumented(
        f'class C:\n    """Why."""\n    def f(self):\n{body}'.replace("    a", "        a")
    ) == ["f"]
