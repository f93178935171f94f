"""`haast serve`: an OpenAI-compatible server over one model."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from haast.cli.config_file import config_file_option
from haast.cli.once import OnceCommand
from haast.cli.options import FILE, engine_options, max_batch_size, model_options, picked
from haast.cli.report import byte_bar, describe_plan, print_warning
from haast.config import EngineConfig

if TYPE_CHECKING:
    from haast.serve.messages import EngineInfo
    from haast.serve.server import Listening
    from haast.serve.service import Settings

F = TypeVar("F", bound=Callable[..., Any])
_log = logging.getLogger(__name__)
IGNORED = {
    "reasoning_parser": "harmony is always parsed",
    "tool_call_parser": "harmony is always parsed",
    "enable_auto_tool_choice": "harmony is always parsed",
    "enable_structured_output": "structured output is always on",
}
"""Options of other servers -> why there is nothing to switch on"""
LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"]


_SERVER_OPTIONS = (
    click.option(
        "--max-queue-size",
        type=int,
        default=EngineConfig.max_queue_size,
        show_default=True,
        help="Requests that may wait; further ones get a 429.",
    ),
    click.option(
        "--host", default="0.0.0.0", show_default=True, help="Address to listen on; may be IPv6."
    ),
    click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True),
    click.option(
        "--served-model-name",
        "models",
        multiple=True,
        envvar="HAAST_SERVED_MODEL_NAME",
        help="Name of the model in the API; repeatable. Default: the model path as given.",
    ),
    click.option(
        "--api-key",
        "api_keys",
        multiple=True,
        envvar="HAAST_API_KEY",
        help="Key that clients must send; repeatable.",
    ),
    click.option(
        "--allowed-origins",
        multiple=True,
        default=["*"],
        show_default=True,
        help="Origin of web pages that may ask (CORS); repeatable.",
    ),
    click.option(
        "--shutdown-timeout",
        type=click.IntRange(0),
        default=30,
        show_default=True,
        help="Seconds that open requests may go on after SIGTERM.",
    ),
    click.option(
        "--chat-template",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Jinja file to render chats with.",
    ),
    click.option("--conversation-date", metavar="YYYY-MM-DD", help="Date to tell the model."),
    click.option(
        "--reasoning-field",
        type=click.Choice(["reasoning", "both"], case_sensitive=False),
        default="reasoning",
        show_default=True,
        help="both = send reasoning as `reasoning_content` too.",
    ),
    click.option(
        "--response-store-mib",
        type=click.IntRange(0),
        default=256,
        show_default=True,
        help="Memory for responses that clients may come back to (/v1/responses); 0 = none.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(LEVELS, case_sensitive=False),
        default="INFO",
        show_default=True,
        help="DEBUG logs a line a request.",
    ),
    click.option(
        "--pretty-print-config", is_flag=True, help="Print configuration and plan once loaded."
    ),
    click.option(
        "--tensor-parallel-size",
        "-tp",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="The first so many GPUs have a share of the model each, as --devices gpu:0,1 says.",
    ),
    click.option("--reasoning-parser", help="Ignored: harmony is always parsed."),
    click.option("--tool-call-parser", "--tool-parser", help="Ignored: always on."),
    click.option("--enable-auto-tool-choice", is_flag=True, help="Ignored: always on."),
    click.option("--enable-structured-output", is_flag=True, help="Ignored: always on."),
)


def server_options(command: F) -> F:
    """Adds the options that say how to listen and to answer."""
    for option in reversed(_SERVER_OPTIONS):
        command = option(command)
    return command


@click.command(
    "serve",
    cls=OnceCommand,
    short_help="Serve a model over an OpenAI-compatible API.",
    context_settings={"auto_envvar_prefix": "HAAST"},
)
@click.argument("model", required=False, type=FILE)
@model_options
@engine_options
@max_batch_size(default=None, default_text="256 on a GPU, 8 on the CPU")
@server_options
@config_file_option
def command(model: Path | None, **options: Any) -> int:
    """Serve MODEL (or --model-path) over an OpenAI-compatible API until SIGTERM.

    Open requests may end then; a second SIGTERM or Ctrl-C cuts them off, with exit code 143 or 130.

    Every option may also stand in HAAST_* variables, such as HAAST_PORT.
    """
    started = time.perf_counter()
    logging.basicConfig(level=options["log_level"], format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # warns at every malformed request
    options["model_path"] = model_path_of(model, options["model_path"])
    tell_ignored(options)
    options["devices"] = _devices(options["devices"], options["tensor_parallel_size"])
    config = picked(EngineConfig, options)
    settings = settings_of(options)
    url = url_of(options["host"], options["port"])

    from haast.serve.client import EngineClient
    from haast.serve.server import Listening, run

    with ExitStack() as loading:
        progress = loading.enter_context(byte_bar("loading"))

        def on_ready(info: "EngineInfo") -> None:
            loading.close()
            if options["pretty_print_config"]:
                _print_config(config, info, settings, listening)
            print_warning(info.plan["warning"])
            ready_s = time.perf_counter() - started
            what = f"{settings.models[0]}, {info.kv_tokens} KV tokens, {ready_s:.1f} s"
            click.echo(f"haast: ready at {url}, {what}", err=True)

        listening = Listening(options["host"], options["port"], options["shutdown_timeout"])
        template = options["chat_template"]
        return run(EngineClient(config), settings, listening, template, progress, on_ready)


def tell_ignored(options: dict[str, Any]) -> None:
    """Log which options of other servers switch nothing on."""
    for name, why in IGNORED.items():
        if options[name]:
            _log.info("--%s is ignored: %s", name.replace("_", "-"), why)


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def model_path_of(positional: Path | None, option: Path | None) -> Path | None:
    """The one that was given. Raises UsageError for two that differ."""
    if positional is not None and option is not None and positional != option:
        raise click.UsageError(f"MODEL is {positional} and --model-path is {option}; give one")
    return positional or option


def _devices(wish: str | None, size: int) -> str | None:
    """Where the model runs, said in one way or the other."""
    if size == 1:
        return wish
    if wish is not None:
        raise click.UsageError(
            f"--devices is {wish} and --tensor-parallel-size is {size}; give one"
        )
    return "gpu:" + ",".join(map(str, range(size)))


def settings_of(options: dict[str, Any]) -> "Settings":
    """How to answer, from the options. Raises UsageError."""
    from haast.serve.service import Settings

    path = options["model_path"]
    if not all(options["api_keys"]):
        raise click.UsageError("an --api-key is empty")
    return Settings(
        models=options["models"] or ("haast-tiny" if path is None else str(path),),
        api_keys=options["api_keys"],
        allowed_origins=options["allowed_origins"],
        conversation_date=options["conversation_date"],
        mirrors_reasoning=options["reasoning_field"] == "both",
        response_store_mib=options["response_store_mib"],
    )


def _print_config(
    config: EngineConfig, info: "EngineInfo", settings: "Settings", listening: "Listening"
) -> None:
    """All that was wished and decided; of keys only how many there are."""
    keys = {"api_keys": len(settings.api_keys)}
    server = asdict(listening) | asdict(settings) | keys
    click.echo(describe_plan(config, info.decided, server), err=True)
