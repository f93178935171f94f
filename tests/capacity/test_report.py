"""`haast plan`, its data and its page."""

import json
import re
import time

import make_curves
import make_scale
import pytest
import yaml
from click.testing import CliRunner
from ray.serve.schema import ServeDeploySchema

from haast.capacity.curves import MODELS, Curves, Measured, model_of
from haast.cli.plan import command
from haast.integrations.ray_serve import Wishes

HEAVY = ("--model", "gpt-oss-120b", "--gpus", "8xH100", "--qps", "200")
PAGE = make_scale.PAGE.read_text()


def plan(*arguments):
    return CliRunner().invoke(command, arguments)


def test_the_curves_are_those_of_the_results():
    assert make_curves.TARGET.read_text() == make_curves.document()


def test_the_errors_are_small():
    """What docs/scale.md states; whoever changes the simulator sees here whether it is worse."""
    errors = json.loads(make_curves.document())["errors"]
    assert errors["requests/s"][1] <= 0.03
    assert errors["ms a token p50"][1] <= 0.13 and errors["ms a token p99"][1] <= 0.14
    assert errors["TTFT p50"][0] <= 0.05 and errors["TTFT p99"][0] <= 0.07


def test_the_page_has_what_is_computed():
    more = re.sub(r"(?<=8xH100 \| 1 \| )\d+", "1", PAGE, count=1)
    assert more != PAGE and make_scale.with_tables(more) == PAGE


def test_all_divisions_and_what_was_not_measured():
    started = time.monotonic()
    told = plan(*HEAVY, "--input", "1000", "--output", "500").output
    assert time.monotonic() - started < 20
    rows = [line.split() for line in told.splitlines()[2:7]]
    assert [row[:2] for row in rows[1:]] == [["1", "8"], ["2", "4"], ["4", "2"], ["8", "1"]]
    assert all("cannot keep up" in " ".join(row) for row in rows[1:])
    flat = " ".join(told.split())
    assert "Not measured: gpt-oss-120b." in flat and "Not measured: several GPUs" in flat
    assert "Measured: gpt-oss-20b on one NVIDIA H100 80GB HBM3 (2026-" in flat


def test_a_load_that_fits():
    told = plan("--gpus", "1xH200", "--qps", "5").output
    assert re.search(
        r"\n +1 +1 +13\.8 GB +[\d,]+ +\d+\.\d +1\d% +\d+ \(\d+\) +\d\.\d \(\d\.\d\)\n", told
    )
    assert "Not measured" not in told


def test_what_does_not_fit_says_why():
    told = plan("--gpus", "2xH100", "--qps", "1", "--input", "200000").output
    assert told.count("does not fit") == 2
    assert "1 a replica: 200500 tokens exceed the model's 131072" in told


@pytest.mark.parametrize("gpus", ["8", "8xA100", "0xH100", "x"])
def test_gpus_that_there_are_not(gpus):
    result = plan("--gpus", gpus, "--qps", "1")
    assert result.exit_code == 2 and "is not like 8xH100; kinds are H100, H200" in result.output


def test_the_serve_config_of_the_page_is_one():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (application,) = ServeDeploySchema(**yaml.safe_load(text)).applications
    wishes = Wishes(**application.args)
    assert wishes.max_replicas == 16 and wishes.settings.models == ("gpt-oss-20b",)
    module, name = application.import_path.split(":")
    assert (module, name) == ("haast.integrations.ray_serve", "app")


def test_a_model_that_was_measured_is_not_computed():
    """The large one has no records yet; once it has, they are taken."""
    small = Curves("gpt-oss-20b", "NVIDIA H100", "", 1088, [], [], 0.0, 1.0, 1.0)
    large = Curves("gpt-oss-120b", "NVIDIA H100", "", 1088, [], [], 0.0, 1.0, 1.0)
    known = {("H100", curves.model): curves for curves in (small, large)}
    assert Measured(known, {}).base("H100", "gpt-oss-120b") is large
    del known["H100", "gpt-oss-120b"]
    assert Measured(known, {}).base("H100", "gpt-oss-120b") is small
    names = ["random-20b", "gpt-oss-120b", "haast-tiny"]
    assert [model_of({"model": name}) for name in names] == ["gpt-oss-20b", "gpt-oss-120b", ""]


def test_the_models_are_those_of_the_command():
    (option,) = (o for o in command.params if o.name == "model")
    assert tuple(option.type.choices) == MODELS
