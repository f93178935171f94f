"""Options that several commands share, named as in `max generate`, with vLLM's as aliases."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from haast.cli.speculation import speculative_option
from haast.config import PAGE_SIZES, CacheFormat, EngineConfig
from haast.engine.sampling_params import SamplingParams

CACHE_WORDS: dict[str, CacheFormat] = {
    "bfloat16": "bfloat16",
    "float8_e4m3fn": "float8_e4m3fn",
    "auto": EngineConfig.kv_cache_format,
    "fp8": "float8_e4m3fn",
    "fp8_e4m3": "float8_e4m3fn",
}
"""Formats of the KV cache, and vLLM's words for them"""
F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)


class _CacheFormat(click.Choice[str]):
    """A word that means a format."""

    def __init__(self) -> None:
        super().__init__([*CACHE_WORDS], case_sensitive=False)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> CacheFormat:
        return CACHE_WORDS[super().convert(value, param, ctx)]


def cache_format_option(name: str) -> Callable[[F], F]:
    """The option, its value under this name."""
    return click.option(
        "--kv-cache-format",
        "--kv-cache-dtype",
        name,
        type=_CacheFormat(),
        default=EngineConfig.kv_cache_format,
        show_default=True,
        help="How keys and values are held: float8_e4m3fn (= fp8, fp8_e4m3) takes half the memory "
        "and rounds them to 3 bits of mantissa; auto = bfloat16.",
    )


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
        metavar="{cpu,gpu,gpu:N,gpu:N,M,...,Nxcpu}",
        help="Several GPUs, or N processes on the CPU, have a share of the model each. "
        "Default: the first GPU if there is one, else cpu.",
    ),
    click.option(
        "--quantization-encoding",
        type=click.Choice(["auto", "mxfp4", "float4_e2m1fnx2", "bfloat16"], case_sensitive=False),
        default=EngineConfig.quantization_encoding,
        show_default=True,
        help="How experts are held: mxfp4 (= float4_e2m1fnx2) keeps published bytes, bfloat16 "
        "dequantises them and is the control; auto = as stored.",
    ),
    cache_format_option("kv_cache_format"),
    click.option(
        "--max-length",
        "--max-model-len",
        type=int,
        help="Prompt and generated tokens of a request. Default: the model's, as memory allows.",
    ),
    click.option(
        "--device-memory-utilization",
        "--gpu-memory-utilization",
        type=float,
        default=EngineConfig.device_memory_utilization,
        show_default=True,
        help="Share of free memory (vLLM: of the total) that weights and KV cache may take.",
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

shortlist_option = click.option(
    "--shortlist-head",
    is_flag=True,
    help="Steps of up to 16 rows find their tokens by an 8-bit shadow of the language-model "
    "head where that gives the same ones: greedy, or a top-k up to 64, or min-p alone.",
)

_ENGINE_OPTIONS = (
    click.option(
        "--max-batch-input-tokens",
        "--max-num-batched-tokens",
        type=int,
        default=EngineConfig.max_batch_input_tokens,
        show_default=True,
        help="Tokens that one step computes at most, over all its requests.",
    ),
    click.option(
        "--enable-in-flight-batching/--no-enable-in-flight-batching",
        default=EngineConfig.enable_in_flight_batching,
        show_default=True,
        help="Whether a step may decode some requests and read the prompts of others.",
    ),
    click.option(
        "--enable-prefix-caching/--no-enable-prefix-caching",
        default=EngineConfig.enable_prefix_caching,
        show_default=True,
        help="Whether a request finds keys and values of an earlier one with the same prefix.",
    ),
    click.option(
        "--deterministic",
        is_flag=True,
        help="An answer's tokens depend on its request alone, to the bit, not on the batch. "
        "Slower; takes a GPU with kernels.",
    ),
    shortlist_option,
    click.option(
        "--kv-cache-page-size",
        "--block-size",
        type=int,
        default=EngineConfig.kv_cache_page_size,
        show_default=True,
        help=f"Positions a page: {', '.join(map(str, PAGE_SIZES))}; kernels take the default.",
    ),
    speculative_option,
)

_SAMPLING_OPTIONS = (
    click.option("--max-new-tokens", type=int, help="Default: as many as fit."),
    click.option(
        "--min-tokens",
        type=int,
        default=SamplingParams.min_tokens,
        show_default=True,
        help="Tokens before which no stop token ends the answer.",
    ),
    click.option(
        "--temperature", type=float, default=SamplingParams.temperature, show_default=True
    ),
    click.option("--top-k", type=int, help="Default: all tokens."),
    click.option("--top-p", type=float, default=SamplingParams.top_p, show_default=True),
    click.option("--min-p", type=float, default=SamplingParams.min_p, show_default=True),
    click.option(
        "--repetition-penalty",
        type=float,
        default=SamplingParams.repetition_penalty,
        show_default=True,
        help="Divides positive logits of tokens of prompt and answer, multiplies negative ones.",
    ),
    click.option(
        "--presence-penalty",
        type=float,
        default=SamplingParams.presence_penalty,
        show_default=True,
        help="Taken off the logits of tokens that the answer has.",
    ),
    click.option(
        "--frequency-penalty",
        type=float,
        default=SamplingParams.frequency_penalty,
        show_default=True,
        help="Taken off the same for each time that the answer has them.",
    ),
    click.option("--seed", type=int, help="Makes sampling reproducible."),
    click.option("--stop", multiple=True, help="Text that ends the answer; repeatable."),
    click.option(
        "--stop-token-ids", type=int, multiple=True, help="Token that ends it; repeatable."
    ),
    click.option("--ignore-eos", is_flag=True, help="Go on after the model's own stop tokens."),
)


def _adds(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    """A decorator that adds options to a command, in order."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


model_options = _adds(_MODEL_OPTIONS)
"""Adds the options that say which model runs where"""
engine_options = _adds(_ENGINE_OPTIONS)
"""Adds the other options that fill `haast.config.EngineConfig`, but for the batch size"""
sampling_options = _adds(_SAMPLING_OPTIONS)
"""Adds the options that fill `haast.engine.request.SamplingParams`"""


def max_batch_size(default: int | None, default_text: str | None = None) -> Callable[[F], F]:
    """Adds the batch size; `default_text` tells the default where that is not a number."""
    return click.option(
        "--max-batch-size",
        "--max-num-seqs",
        type=int,
        default=default,
        show_default=default_text or True,
        help="Requests computed at a time.",
    )


def picked(kind: Any, options: dict[str, Any]) -> Any:
    """An instance of a config dataclass from the options that carry its fields' names."""
    return kind(**{name: options[name] for name in kind.__dataclass_fields__ if name in options})
