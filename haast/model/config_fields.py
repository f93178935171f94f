"""ModelConfig -> config.json, in Hugging Face's spelling or OpenAI's."""

from typing import Any

from haast.config import ModelConfig
from haast.model.layouts import Layout

_END_IDS = {"eos_token_id": 200002, "pad_token_id": 199999}
_UNQUANTIZED = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens"]


def config_fields(config: ModelConfig, layout: Layout) -> dict[str, Any]:
    """The config.json that this layout is published with."""
    if layout.name == "original":
        return _openai_fields(config)
    fields = _hugging_face_fields(config)
    if layout.encoding == "mxfp4":
        fields["quantization_config"] = {
            "modules_to_not_convert": [*_UNQUANTIZED, "lm_head"],
            "quant_method": "mxfp4",
        }
    return fields


def _hugging_face_fields(config: ModelConfig) -> dict[str, Any]:
    """What transformers needs, including what this package has no use for."""
    kinds = ["sliding_attention" if window else "full_attention" for window in config.windows]
    return {
        "architectures": [config.architecture],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "experts_per_token": config.num_active_experts,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initial_context_length": config.rope.original_max_length,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "layer_types": kinds,
        "max_position_embeddings": config.max_length,
        "model_type": "gpt_oss",
        "num_attention_heads": config.num_heads,
        "num_experts_per_tok": config.num_active_experts,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "num_local_experts": config.num_experts,
        "output_router_logits": False,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_scaling": {
            "beta_fast": config.rope.beta_fast,
            "beta_slow": config.rope.beta_slow,
            "factor": config.rope.factor,
            "original_max_position_embeddings": config.rope.original_max_length,
            "rope_type": "yarn",
            "truncate": config.rope.truncate,
        },
        "rope_theta": config.rope.theta,
        "router_aux_loss_coef": 0.9,
        "sliding_window": next((window for window in config.windows if window), 1),
        "swiglu_limit": config.swiglu_limit,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": config.vocab_size,
        **{key: token for key, token in _END_IDS.items() if token < config.vocab_size},
    }


def _openai_fields(config: ModelConfig) -> dict[str, Any]:
    return {
        "num_hidden_layers": config.num_layers,
        "num_experts": config.num_experts,
        "experts_per_token": config.num_active_experts,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "swiglu_limit": config.swiglu_limit,
        "head_dim": config.head_dim,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "sliding_window": config.windows[0],
        "initial_context_length": config.rope.original_max_length,
        "rope_theta": config.rope.theta,
        "rope_scaling_factor": config.rope.factor,
        "rope_ntk_alpha": config.rope.beta_slow,
        "rope_ntk_beta": config.rope.beta_fast,
    }
