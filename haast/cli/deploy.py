"""`haast deploy`: replicas of a model behind one endpoint, by Ray Serve."""

import json
import logging
from pathlib import Path
from typing import Any

import click

from haast.cli.config_file import config_file_option
from haast.cli.once import OnceCommand
from haast.cli.options import FILE, engine_options, max_batch_size, model_options, picked
from haast.cli.serve import model_path_of, server_options, settings_of, tell_ignored, url_of
from haast.config import EngineConfig


@click.command(
    "deploy",
    cls=OnceCommand,
    short_help="Serve a model on several GPUs or hosts, by Ray Serve.",
    context_settings={"auto_envvar_prefix": "HAAST"},
)
@click.argument("model", required=False, type=FILE)
@click.option(
    "--replicas",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Engines, each with a copy of the model; with --max-replicas the fewest.",
)
@click.option(
    "--max-replicas",
    type=click.IntRange(1),
    help="The most: replicas come and go with the requests that are open and waiting.",
)
@click.option(
    "--target-requests",
    type=click.FloatRange(0, min_open=True),
    help="Open requests a replica that --max-replicas aims at. Default: 3/4 of the batch size.",
)
@click.option(
    "--gpus-per-replica",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="More than one: tensor parallel; 0 = the CPU.",
)
@click.option(
    "--fronts",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes between clients and replicas.",
)
@click.option(
    "--address",
    help="Ray cluster: auto, or HOST:PORT of its head. Default: a cluster of this machine, which "
    "ends with the command.",
)
@model_options
@engine_options
@max_batch_size(default=None, default_text="256 on a GPU, 8 on the CPU")
@server_options
@config_file_option
def command(model: Path | None, **options: Any) -> None:
    """Serve MODEL (or --model-path) by several replicas behind one OpenAI-compatible endpoint.

    With --address the command ends when all replicas answer; called again, it replaces them one
    after the other and drops no request. `serve status` and `serve shutdown` are Ray's.
    """
    logging.basicConfig(level=options["log_level"], format="%(asctime)s %(levelname)s %(message)s")
    options["model_path"] = model_path_of(model, options["model_path"])
    if (size := options["tensor_parallel_size"]) != 1:
        raise click.UsageError(
            f"--tensor-parallel-size is {size}; --gpus-per-replica says that here"
        )
    tell_ignored(options)
    settings = settings_of(options)

    from haast.integrations.cluster import Where, deploy, shut_down, wait_for_signal
    from haast.integrations.ray_serve import Wishes

    wishes = Wishes(
        engine=picked(EngineConfig, options),
        settings=settings,
        drain_s=options["shutdown_timeout"],
        **{name: options[name] for name in Wishes.model_fields if name in options},
    )
    if options["pretty_print_config"]:
        shown = wishes.model_dump(mode="json")
        shown["settings"]["api_keys"] = len(settings.api_keys)  # of keys only how many there are
        click.echo(json.dumps(shown, indent=2), err=True)
    where = Where(options["address"], options["host"], options["port"])
    cluster = deploy(wishes, where)
    url = url_of(where.host, where.port)
    what = f"{settings.models[0]}, {wishes.replicas} replicas, --address {cluster} updates them"
    click.echo(f"haast: ready at {url}, {what}", err=True)
    if where.address is None:
        wait_for_signal()
        shut_down()
