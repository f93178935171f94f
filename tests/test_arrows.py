"""Who may import whom. A new package needs a row here: that is the point of the test."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "haast").rglob("*.py"))
EVERYONE = {"config", "errors"}
BELOW = {
    "errors": set(),
    "speculative_config": {"errors"},
    "config": {"errors", "speculative_config"},
    "mxfp4": set(),
    "cuda": {"errors"},
    "ops": {"mxfp4", "cuda"} | EVERYONE,
    "parallel": {"ops", "cuda", "mxfp4"} | EVERYONE,
    "model": {"ops", "mxfp4", "parallel"} | EVERYONE,
    "engine": {"model", "ops", "mxfp4", "parallel"} | EVERYONE,
    "harmony": EVERYONE,
    "prompt": {"harmony"} | EVERYONE,
    "stop_strings": set(),
    "reply_stream": {"harmony", "stop_strings"} | EVERYONE,
    "result": {"engine", "harmony"} | EVERYONE,
    "grammars": {"engine", "harmony"} | EVERYONE,
    "llm": {"engine", "model", "grammars", "harmony", "prompt", "reply_stream", "result"}
    | EVERYONE,
    "coherence": {"llm", "result", "engine", "model", "harmony"} | EVERYONE,
    "bench": {"engine", "model", "ops", "mxfp4", "parallel", "cuda", "grammars", "harmony"}
    | EVERYONE,
    "baseline": {"bench", "cuda"} | EVERYONE,
    "doctor": {"bench", "cuda", "engine", "harmony", "model", "ops"} | EVERYONE,
    "serve": {"__init__", "engine", "model", "grammars", "harmony", "prompt", "stop_strings"}
    | EVERYONE,
    "integrations": {"serve"} | EVERYONE,
    "capacity": {"bench", "engine", "model"} | EVERYONE,
    "cli": {"llm", "result", "serve", "coherence", "engine", "model", "bench", "integrations"}
    | {"baseline", "capacity", "doctor"}
    | EVERYONE,
    "__init__": {"llm", "engine", "errors"},
    "__main__": {"__init__", "cli", "errors"},
}
"""Part of haast -> the other parts that it may import, also inside functions"""
OUTSIDE = {
    "cuda": {"torch", "cuda"},
    "mxfp4": {"torch"},
    "ops": {"torch"},
    "parallel": {"torch"},
    "model": {"torch"},
    "engine": {"numpy", "torch"},
    "harmony": {"jinja2", "tokenizers"},
    "grammars": {"llguidance"},
    "llm": {"torch"},
    "coherence": {"torch"},
    "bench": {"torch", "matplotlib", "httptools", "msgspec", "uvloop"},
    "baseline": {"matplotlib"},
    "doctor": {"torch"},
    "serve": {"msgspec", "zmq", "prometheus_client", "pydantic", "starlette", "uvicorn", "uvloop"},
    "capacity": {"torch"},
    "integrations": {"msgspec", "prometheus_client", "pydantic", "ray", "starlette"},
    "cli": {"click", "rich", "yaml"},
    "__main__": {"click"},
}
"""Part of haast -> what it may import that is neither haast nor the standard library"""
PURE = (
    "cuda/build.py",
    "capacity/simulate.py",
    *(
        f"engine/{name}.py"
        for name in (
            "drafts",
            "engine",
            "intake",
            "kv_pages",
            "kv_plan",
            "limits",
            "masks",
            "ngrams",
            "outputs",
            "pages",
            "prefix_cache",
            "request",
            "sampling_params",
            "scheduler",
            "step",
            "waiting",
            "wake",
        )
    ),
)
"""Files of parts that may import torch which must not"""


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "haast").with_suffix("").parts[0]


def imports(source: str, package: str = "") -> set[str]:
    """Dotted names that a file imports; of `from a import b` it is a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -node.level + 1 or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def wrong_imports(source: str, part: str, is_pure: bool = False) -> list[str]:
    """Imports of a file in a part of haast that cross an arrow."""
    wrong = []
    for name in sorted(imports(source, f"haast.{part}")):
        top, *rest = name.split(".")
        if top == "haast":
            target = rest[0] if rest and rest[0] in BELOW else "__init__"
            if target != part and target not in BELOW[part]:
                wrong.append(name)
        elif top not in sys.stdlib_module_names and (is_pure or top not in OUTSIDE.get(part, ())):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows(path):
    is_pure = any(path == ROOT / "haast" / pure for pure in PURE)
    assert wrong_imports(path.read_text(), part_of(path), is_pure) == []


def test_every_row_is_about_something():
    assert set(BELOW) == {part_of(path) for path in FILES}
    assert set(OUTSIDE) <= set(BELOW)
    assert all((ROOT / "haast" / pure).is_file() for pure in PURE)


@pytest.mark.parametrize(
    "part, source",
    [
        ("mxfp4", "from haast.ops import linear"),
        ("mxfp4", "import numpy"),
        ("ops", "def f():\n    from haast.model.gpt_oss import GptOss"),
        ("ops", "from haast import engine"),
        ("ops", "import triton.language as tl"),
        ("model", "import haast.harmony"),
        ("model", "from ..engine import request"),
        ("harmony", "import torch"),
        ("harmony", "from torch.nn import functional"),
        ("engine", "from haast.harmony import Tokenizer"),
        ("llm", "from haast import LLM"),
        ("cli", "from haast.__main__ import main"),
        ("cli", "from tests.model import helpers"),
        ("cli", "import tools.wordnet"),
        ("config", "from haast.ops import OPS"),
        ("errors", "from haast.config import Plan"),
    ],
)
def test_a_wrong_arrow_is_found(part, source):
    assert len(wrong_imports(source, part)) == 1


def test_torch_in_a_pure_file_is_found():
    source = "import torch\nfrom haast.errors import HaastError"
    assert wrong_imports(source, "engine") == []
    assert wrong_imports(source, "engine", is_pure=True) == ["torch"]


def test_tools_import_no_tests_and_no_program():
    for path in sorted((ROOT / "tools").rglob("*.py")):
        found = {name for name in imports(path.read_text()) if name.split(".")[0] == "tests"}
        found |= {name for name in imports(path.read_text()) if name.startswith("haast.__main__")}
        assert not found, path


def run_python(script: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return run.stdout.strip()


def test_the_program_starts_without_torch():
    modules = ["haast", "haast.__main__"]
    modules += [f"haast.cli.{path.stem}" for path in (ROOT / "haast/cli").glob("[a-z]*.py")]
    assert {"haast.cli.generate", "haast.cli.coherence", "haast.cli.make_checkpoint"} < {*modules}
    script = f"import sys, {', '.join(sorted(modules))}\nprint('torch' in sys.modules)"
    assert run_python(script) == "False"


def test_a_check_of_a_baseline_holds_no_torch():
    """It starts programs that want all of the GPU's memory."""
    names = [f"haast.baseline.{path.stem}" for path in (ROOT / "haast/baseline").glob("[a-z]*.py")]
    assert "haast.baseline.check" in names
    assert run_python(f"import sys, {', '.join(names)}\nprint('torch' in sys.modules)") == "False"


def test_the_server_process_needs_no_torch():
    """The engine is a process of its own; the server should start at once and stay small."""
    script = "import sys, haast.serve.server, haast.serve.client\nprint('torch' in sys.modules)"
    assert run_python(script) == "False"


IMPORT_ALL = """
import os, pkgutil
from importlib import import_module
import torch

def refuse(*args):
    raise AssertionError("a GPU was touched")

torch.cuda._lazy_init = refuse
torch.cuda.device_count = torch.cuda.mem_get_info = refuse
before = dict(os.environ)
import haast
names = [m.name for m in pkgutil.walk_packages(haast.__path__, "haast.")]
for name in names:
    import_module(name)
print(len(names) > 40, dict(os.environ) == before)
"""


def test_importing_touches_no_gpu_and_no_environment():
    assert run_python(IMPORT_ALL) == "True True"
