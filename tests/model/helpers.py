"""A small asymmetric network, and its forward pass on the reference ops."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from haast import ops
from haast.config import ModelConfig
from haast.model.gpt_oss import GptOss
from haast.model.kv_cache import PAGE_SIZE, KVCache
from haast.model.parameters import Parameters

CPU = torch.device("cpu")
WEIGHTS = {
    "hf": "model-00001-of-00001.safetensors",
    "original": "model.safetensors",
    "bf16": "model-00001-of-00001.safetensors",
}
TINY = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "head_dim": 16,
    "hidden_size": 96,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rms_norm_eps": 1e-5,
    "rope_theta": 150000.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    },
    "swiglu_limit": 7.0,
    "max_position_embeddings": 131072,
}


def write_config(path: Path, **changes) -> Path:
    path.write_text(json.dumps(TINY | changes))
    return path


def prompt_meta(num_tokens: int) -> ops.StepMeta:
    """One request with nothing cached, its pages in order."""
    positions = torch.arange(num_tokens, dtype=torch.int32)
    pages = torch.arange(math.ceil(num_tokens / PAGE_SIZE), dtype=torch.int32)[None]
    return ops.StepMeta(
        positions=positions,
        cu_seqlens_q=torch.tensor([0, num_tokens], dtype=torch.int32),
        kv_lens=torch.tensor([num_tokens], dtype=torch.int32),
        page_table=pages,
        slot_mapping=positions,
        window_page_table=pages,
        window_slot_mapping=positions,
        num_decodes=0,
        max_query_len=num_tokens,
    )


def prefill(config: ModelConfig, parameters: Parameters, token_ids: list[int]) -> Tensor:
    """Hidden states [T, H] of one request with nothing cached, reference ops only."""
    num_tokens = len(token_ids)
    num_pages = math.ceil(num_tokens / PAGE_SIZE)
    model = GptOss(config, parameters, max_length=num_tokens)
    kv = KVCache.empty(config, num_pages, num_pages, model.dtype, model.device)
    with ops.pin({op.name: ops.REFERENCE for op in ops.OPS}):
        return model.forward(torch.tensor(token_ids), prompt_meta(num_tokens), kv)


def logits(config: ModelConfig, parameters: Parameters, token_ids: list[int]) -> Tensor:
    """Scores [T, V] fp32 of every position."""
    hidden = prefill(config, parameters, token_ids)
    with ops.pin({"linear": ops.REFERENCE}):
        return GptOss(config, parameters, max_length=1).logits(hidden)
