"""docs/clients.md: every example runs against haast-tiny and prints what the page says."""

import contextlib
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .serve.api.conftest import running

__all__ = ["running"]

PAGE = (Path(__file__).parents[1] / "docs" / "clients.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```\n```text\n(.*?)^```", PAGE, re.M | re.S)
COMMANDS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
HERE = "localhost:8000"


def at(running, text: str) -> str:
    """The text, with the address of the server that runs."""
    assert HERE in text
    return text.replace(HERE, running.url.removeprefix("http://"))


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_prints_what_the_page_says(running, number):
    code, expected = EXAMPLES[number]
    printed = io.StringIO()
    scope = {"__name__": "example"}
    with contextlib.redirect_stdout(printed):
        exec(compile(at(running, code), f"example {number}", "exec"), scope)
    if "client" in scope:
        scope["client"].close()
    lines = [line.strip() for line in printed.getvalue().splitlines()]
    assert lines == [line.strip() for line in expected.splitlines()]


def test_all_python_is_run():
    assert PAGE.count("```python") == len(EXAMPLES) >= 7


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_curl_commands(running):
    told = []
    for command in "".join(COMMANDS).split("curl ")[1:]:
        shown = at(running, f"curl --fail {command}")
        ran = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, shown
        told.append(json.loads(ran.stdout))
    chat, rendered, completion, tokens, text, models, health = told
    assert chat["choices"][0]["message"]["content"].startswith("A bald eagle is a large eagle")
    assert rendered["prompt"].endswith("<|start|>assistant")
    assert completion["usage"]["completion_tokens"] <= 8 and completion["choices"][0]["text"]
    assert tokens["count"] == len(tokens["tokens"]) > 0 and text["prompt"]
    assert models["data"][0]["id"] == "haast-tiny" and health == {"status": "ok"}
