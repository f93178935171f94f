"""config.json -> ModelConfig, in Hugging Face's spelling or OpenAI's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from haast.config import ConfigError, ModelConfig, RopeConfig

T = TypeVar("T")


def read_model_config(path: Path) -> ModelConfig:
    """config.json of a checkpoint in Hugging Face's or OpenAI's spelling.

    Raises ConfigError naming the file and the key that is missing, mistyped or impossible.
    """
    return parse_model_config(read_json(path), path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ConfigError in one line if that is not what it holds."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(fields).__name__}")
    return fields


def parse_model_config(fields: Mapping[str, Any], path: Path) -> ModelConfig:
    """See `read_model_config`; `path` is for messages only."""
    read = _Fields(fields, path)
    if "rope_ntk_beta" in fields:
        return _checked(_from_openai(read), path)
    model_type = read.get("model_type", str)
    if model_type != "gpt_oss":
        raise ConfigError(f"{path}: not a gpt-oss model: model_type is '{model_type}'")
    return _checked(_from_hugging_face(read), path)


class _Fields:
    """Typed access to a parsed config file that names file and key when something is off."""

    def __init__(self, fields: Mapping[str, Any], path: Path) -> None:
        self.fields = fields
        self.path = path

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        value = self.fields.get(key, default)
        if value is None:
            raise ConfigError(f"{self.path}: '{key}' is missing")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{self.path}: '{key}' must be {kind.__name__}; got {value!r}")
        return value

    def inside(self, key: str) -> "_Fields":
        return _Fields(self.get(key, dict), self.path)


def _from_hugging_face(read: _Fields) -> ModelConfig:
    num_layers = read.get("num_hidden_layers", int)
    window = read.get("sliding_window", int)
    kinds = read.get("layer_types", list, ["sliding_attention", "full_attention"] * num_layers)
    rope = read.inside("rope_parameters" if "rope_parameters" in read.fields else "rope_scaling")
    theta = rope if "rope_theta" in rope.fields else read
    rope_type = rope.get("rope_type", str)
    if rope_type != "yarn":
        raise ConfigError(f"{read.path}: 'rope_type' must be yarn; got {rope_type!r}")
    return ModelConfig(
        architecture=_architecture(read),
        num_layers=num_layers,
        hidden_size=read.get("hidden_size", int),
        intermediate_size=read.get("intermediate_size", int),
        num_experts=read.get("num_local_experts", int),
        num_active_experts=read.get("num_experts_per_tok", int),
        num_heads=read.get("num_attention_heads", int),
        num_kv_heads=read.get("num_key_value_heads", int),
        head_dim=read.get("head_dim", int),
        vocab_size=read.get("vocab_size", int),
        windows=tuple(_window(kind, window, read.path) for kind in kinds),
        rope=RopeConfig(
            theta=theta.get("rope_theta", float),
            factor=rope.get("factor", float),
            beta_fast=rope.get("beta_fast", float, 32.0),
            beta_slow=rope.get("beta_slow", float, 1.0),
            original_max_length=rope.get("original_max_position_embeddings", int),
            truncate=rope.get("truncate", bool, True),
        ),
        swiglu_limit=read.get("swiglu_limit", float, 7.0),
        rms_norm_eps=read.get("rms_norm_eps", float),
        max_length=read.get("max_position_embeddings", int),
    )


def _architecture(read: _Fields) -> str:
    names = read.get("architectures", list)
    if len(names) != 1 or not isinstance(names[0], str):
        raise ConfigError(f"{read.path}: 'architectures' must hold one name; got {names!r}")
    return names[0]


def _window(kind: object, window: int, path: Path) -> int | None:
    if kind not in ("sliding_attention", "full_attention"):
        raise ConfigError(
            f"{path}: 'layer_types' holds {kind!r}; allowed: sliding_attention, full_attention"
        )
    return window if kind == "sliding_attention" else None


def _from_openai(read: _Fields) -> ModelConfig:
    """OpenAI's own config.json (`original/`); sliding layers are the even ones."""
    num_layers = read.get("num_hidden_layers", int)
    window = read.get("sliding_window", int)
    original_max_length = read.get("initial_context_length", int)
    factor = read.get("rope_scaling_factor", float)
    return ModelConfig(
        architecture="GptOssForCausalLM",
        num_layers=num_layers,
        hidden_size=read.get("hidden_size", int),
        intermediate_size=read.get("intermediate_size", int),
        num_experts=read.get("num_experts", int),
        num_active_experts=read.get("experts_per_token", int),
        num_heads=read.get("num_attention_heads", int),
        num_kv_heads=read.get("num_key_value_heads", int),
        head_dim=read.get("head_dim", int),
        vocab_size=read.get("vocab_size", int),
        windows=tuple(None if layer % 2 else window for layer in range(num_layers)),
        rope=RopeConfig(
            theta=read.get("rope_theta", float),
            factor=factor,
            beta_fast=read.get("rope_ntk_beta", float),
            beta_slow=read.get("rope_ntk_alpha", float),
            original_max_length=original_max_length,
            truncate=False,
        ),
        swiglu_limit=read.get("swiglu_limit", float, 7.0),
        rms_norm_eps=1e-5,
        max_length=int(original_max_length * factor),
    )


def _checked(config: ModelConfig, path: Path) -> ModelConfig:
    """Relations between values that the whole forward pass relies on."""
    rules = {
        "hidden_size must be a positive multiple of 32": _is_multiple(config.hidden_size, 32),
        "intermediate_size must be a positive multiple of 32": _is_multiple(
            config.intermediate_size, 32
        ),
        "num_attention_heads must be a multiple of num_key_value_heads": _is_multiple(
            config.num_heads, config.num_kv_heads
        ),
        "head_dim must be a positive even number": _is_multiple(config.head_dim, 2),
        "experts per token must be between 1 and the number of experts": (
            1 <= config.num_active_experts <= config.num_experts
        ),
        "layer_types must name every layer": len(config.windows) == config.num_layers > 0,
        "sliding_window must be at least 1": all(w is None or w > 0 for w in config.windows),
        "vocab_size must be positive": config.vocab_size > 0,
    }
    for rule, holds in rules.items():
        if not holds:
            raise ConfigError(f"{path}: {rule}")
    return config


def _is_multiple(number: int, of: int) -> bool:
    return of > 0 and number > 0 and number % of == 0
