"""docs/serve.md: every option, endpoint, field and metric is on the page, with its default."""

import re
from pathlib import Path

import click
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from haast.cli.serve import IGNORED, command
from haast.engine.sampling_params import MAX_LOGPROBS, MAX_SEQUENCES
from haast.serve import fields
from haast.serve.app import ENDPOINTS
from haast.serve.completions import MAX_PROMPTS
from haast.serve.messages import EngineStats
from haast.serve.middleware import OPEN_PATHS
from haast.serve.protocol import ChatBody, CompletionBody
from haast.serve.requests import MAX_BODY_BYTES

from .serve.api.conftest import Api

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "serve.md").read_text()
OPTIONS = [option for option in command.params if isinstance(option, click.Option)]
ROWS = {
    cells[0].strip(" `"): [cell.strip() for cell in cells[1:]]
    for line in PAGE.splitlines()
    if line.startswith("| `--") and (cells := line.strip("|").split("|"))
}
SPANS = set(re.findall(r"`([^`\n]+)`", PAGE))
SAID = {"model_path", "devices", "max_length", "max_batch_size", "models"}
"""Options whose default depends; the page says on what"""


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option(option):
    names = {*option.opts, *option.secondary_opts}
    assert names <= SPANS
    if option.name in IGNORED:
        return
    also, default, *_ = ROWS[option.opts[0]]
    assert set(re.findall(r"`(--?[\w-]+)`", also)) == names - {option.opts[0]}
    if option.name in SAID:
        assert default
        return
    value = command.make_context("serve", []).params.get(option.name)
    if isinstance(value, (list, tuple)):
        value = " ".join(value)
    assert default == ("" if value in (None, False) else str(value))


def test_there_are_no_other_options():
    known = {name for option in OPTIONS for name in option.opts}
    assert ROWS.keys() <= known


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_variables_are_named_after_the_option(option, monkeypatch):
    name = option.opts[0].removeprefix("--").replace("-", "_").upper()
    if not option.expose_value:
        return
    context = click.Context(command, info_name="serve", auto_envvar_prefix="HAAST")
    monkeypatch.setenv(f"HAAST_{name}", "x")
    assert option.resolve_envvar_value(context) == "x"


def test_the_file_is_the_one_that_is_deployed():
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    assert yaml.safe_load(shown) == yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text())


def test_endpoints():
    shown = {path for span in SPANS for path in re.findall(r"/[\w/.{}-]+", span)}
    assert {path.replace(":path", "") for path in ENDPOINTS} <= shown
    for path, (method, _) in ENDPOINTS.items():
        assert f"{method} {path}" in SPANS or path == "/v1/models/{name:path}"
    open_ones = re.search(r"(`/health`.*?) ask for no key", PAGE, re.S)
    assert OPEN_PATHS == set(re.findall(r"`([^`]+)`", open_ones[1]))


def test_fields():
    assert {*ChatBody.model_fields, *CompletionBody.model_fields, *fields.HARMLESS} <= SPANS
    assert not SPANS & (fields.REFUSED_IN_CHAT.keys() - CompletionBody.model_fields.keys()) - {
        "audio"
    }


def test_limits():
    assert f"| {MAX_BODY_BYTES >> 20} MiB |" in PAGE
    assert f"`n` | {MAX_SEQUENCES} |" in PAGE and f"completion | {MAX_PROMPTS} |" in PAGE
    assert f"`top_logprobs` | {MAX_LOGPROBS} |" in PAGE


def test_metrics():
    api = Api()
    api.chat()
    api.engine.now = EngineStats(accepted_per_position=(0,))
    families = list(text_string_to_metric_families(api.http.get("/metrics").text))
    suffix = {"counter": "_total", "info": "_info"}
    exported = {f.name + suffix.get(f.type, "") for f in families}
    shown = {span for span in SPANS if re.fullmatch(r"(vllm|haast):\w+", span)}
    assert shown == exported
