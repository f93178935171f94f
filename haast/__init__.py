"""haast: OpenAI's gpt-oss models on NVIDIA Hopper, with the MXFP4 weights exactly as published.

Importing this package touches no GPU, sets no environment variable and patches nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["LLM", "HaastError", "SamplingParams", "__version__"]

if TYPE_CHECKING:
    from haast.engine.request import SamplingParams
    from haast.errors import HaastError
    from haast.llm import LLM

_HOMES = {
    "LLM": "haast.llm",
    "SamplingParams": "haast.engine.request",
    "HaastError": "haast.errors",
}


def __getattr__(name: str) -> Any:
    """Load the public names when first used, so that `haast --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'haast' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
