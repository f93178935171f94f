"""Options that several commands share, named as in `max generate`, with vLLM's as aliases."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from haast.config import EngineConfig

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)

_MODEL_OPTIONS = (
    click.option(
        "--model-path",
        "--model",
        type=FILE,
        help="Folder of a checkpoint, or owner/name in the local Hugging Face cache. "
        "Default: the bundled haast-tiny.",
    ),
    click.option(
        "--devices",
        metavar="{cpu,gpu,gpu:N}",
        help="Default: the first GPU if there is one, else cpu.",
    ),
    click.option(
        "--quantization-encoding",
        type=click.Choice(["auto", "mxfp4", "float4_e2m1fnx2", "bfloat16"], case_sensitive=False),
        default=EngineConfig.quantization_encoding,
        show_default=True,
        help="How experts are held: mxfp4 (= float4_e2m1fnx2) keeps published bytes, bfloat16 "
        "dequantises them and is the control; auto = as stored.",
    ),
    click.option(
        "--max-length",
        "--max-model-len",
        type=int,
        help="Prompt and generated tokens of a request. Default: the model's, as memory allows.",
    ),
    click.option(
        "--device-memory-utilization",
        type=float,
        default=EngineConfig.device_memory_utilization,
        show_default=True,
        help="Share of the free memory that weights and KV cache may take.",
    ),
    click.option(
        "--custom-architectures",
        multiple=True,
        metavar="PATH",
        help="Python module (file, or folder:module) that exports ARCHITECTURES; repeatable.",
    ),
    click.option(
        "--load-format",
        type=click.Choice(["auto", "dummy"]),
        default=EngineConfig.load_format,
        show_default=True,
        help="dummy = random weights made on the device; --model-path then needs config.json only, "
        "or may be gpt-oss-20b or gpt-oss-120b.",
    ),
)


def model_options(command: F) -> F:
    """Adds the options that fill `haast.config.EngineConfig`, but for the batch size."""
    for option in reversed(_MODEL_OPTIONS):
        command = option(command)
    return command


def max_batch_size(default: int) -> Callable[[F], F]:
    return click.option(
        "--max-batch-size",
        "--max-num-seqs",
        type=int,
        default=default,
        show_default=True,
        help="Requests computed at a time.",
    )
