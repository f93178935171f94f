"""Writes a trained haast-tiny in the layout that gpt-oss is published in."""

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_model import GLOBAL, TinyModel
from torch import Tensor

from haast.harmony import Tokenizer
from haast.mxfp4 import quantize

NUM_LAYERS = 6
TINY_CONFIG: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initial_context_length": 256,
    "initializer_range": 0.02,
    "intermediate_size": 192,
    "layer_types": ["sliding_attention", "full_attention"] * (NUM_LAYERS // 2),
    "max_position_embeddings": 4096,
    "model_type": "gpt_oss",
    "num_attention_heads": 16,
    "num_experts_per_tok": 4,
    "num_hidden_layers": NUM_LAYERS,
    "num_key_value_heads": 2,
    "num_local_experts": 16,
    "output_router_logits": False,
    "quantization_config": {
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 16.0,
        "original_max_position_embeddings": 256,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 32,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}


def write_checkpoint(
    model: TinyModel, fields: dict[str, Any], tokenizer: Tokenizer, out: Path
) -> None:
    """config.json, model.safetensors and what transformers wants beside tokenizer.json."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in _tensors(model).items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    _write_json(out / "config.json", fields)
    stop_ids = sorted(tokenizer.stop_ids)
    _write_json(out / "generation_config.json", {"do_sample": True, "eos_token_id": stop_ids})
    template = files("haast.harmony") / "chat_template.jinja"
    shutil.copyfile(str(template), out / "chat_template.jinja")
    special = {
        name: tokenizer.special_text[getattr(tokenizer.special, name)]
        for name in ("return_", "endoftext")
    }
    _write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "eos_token": special["return_"],
            "pad_token": special["endoftext"],
            "model_max_length": fields["max_position_embeddings"],
        },
    )


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2) + "\n")


def _tensors(model: TinyModel) -> dict[str, Tensor]:
    """Hugging Face names -> stored tensors."""
    p = {name: value.detach() for name, value in model.named_parameters()}
    named = {
        "model.embed_tokens.weight": p["embedding"].bfloat16(),
        "model.norm.weight": p["norm"].bfloat16(),
        "lm_head.weight": p["lm_head"].bfloat16(),
    }
    for layer in range(model.config.num_layers):
        of_layer = {name: value[layer] for name, value in p.items() if name not in GLOBAL}
        prefix = f"model.layers.{layer}."
        named |= {prefix + name: value for name, value in _layer(model, of_layer).items()}
    return named


def _layer(model: TinyModel, p: dict[str, Tensor]) -> dict[str, Tensor]:
    config = model.config
    sizes = [
        n * config.head_dim for n in (config.num_heads, config.num_kv_heads, config.num_kv_heads)
    ]
    named = {
        "input_layernorm.weight": p["attn_norm"],
        "post_attention_layernorm.weight": p["mlp_norm"],
        "self_attn.sinks": p["sinks"],
        "self_attn.o_proj.weight": p["out_weight"],
        "self_attn.o_proj.bias": p["out_bias"],
        "mlp.router.weight": p["router_weight"],
        "mlp.router.bias": p["router_bias"],
        "mlp.experts.gate_up_proj_bias": p["up_bias"],
        "mlp.experts.down_proj_bias": p["down_bias"],
    }
    for kind in ("weight", "bias"):
        for name, part in zip("qkv", torch.split(p[f"qkv_{kind}"], sizes), strict=True):
            named[f"self_attn.{name}_proj.{kind}"] = part
    named = {name: value.bfloat16() for name, value in named.items()}
    for name, weight in (("gate_up_proj", p["up_weight"]), ("down_proj", p["down_weight"])):
        values, scales = quantize(weight)
        named[f"mlp.experts.{name}_blocks"] = values.view(*scales.shape, -1)
        named[f"mlp.experts.{name}_scales"] = scales
    return named
