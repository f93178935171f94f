"""Which published model fits, and how many requests at a time: the engine's own plan."""

from pathlib import Path

from haast.config import EngineConfig, Plan
from haast.doctor.finding import Finding, bad, note, ok
from haast.engine.load import prepare
from haast.errors import HaastError
from haast.model.locate import PACKAGED_CONFIGS, locate_model
from haast.model.safetensors_file import CheckpointError

SMALLEST = "gpt-oss-20b"
USUAL_LENGTH = 8192
"""Tokens of a request, prompt and answer, for which the number that fits is told"""


def fit_findings(devices: str) -> list[Finding]:
    """One line a published model.

    devices  as in `haast.config.EngineConfig`
    """
    return [fits(name, devices) for name in PACKAGED_CONFIGS]


def fits(name: str, devices: str) -> Finding:
    """Plans as `haast serve` would, and reads no weights. A GPU without room for any is no use."""
    wishes = EngineConfig(Path(name), devices, load_format="dummy", max_length=USUAL_LENGTH)
    try:
        plan = prepare(wishes).plan
    except HaastError as error:
        is_needed = devices != "cpu" and name == SMALLEST
        return (bad if is_needed else note)(name, "does not fit", str(error))
    try:
        locate_model(Path(f"openai/{name}"))
    except CheckpointError:
        how = f"no weights in Hugging Face's cache; to fetch them: hf download openai/{name}"
        return note(name, _text(plan), how)
    return ok(name, _text(plan))


def _text(plan: Plan) -> str:
    memory = plan.memory
    at_once = min(plan.max_batch_size, memory.num_full_length)
    where = "CPU" if plan.device == "cpu" else "GPU"
    return (
        f"on the {where} {memory.weight_bytes / 1e9:.1f} GB of weights fit, and "
        f"{memory.kv_tokens:,} tokens in the KV cache: {at_once} requests of "
        f"{plan.max_length:,} at a time"
    )
