"""Random weights: reproducible, of the stated statistics, and a network that behaves."""

from pathlib import Path

import pytest
import torch

from haast import ops
from haast.model.config_file import parse_model_config
from haast.model.gpt_oss import GptOss
from haast.model.random_weights import EXPERT_GAINS, random_parameters, random_weight
from haast.mxfp4 import Mxfp4Weight

from .helpers import CPU, TINY, logits

NUM_LAYERS = 24
DEEP = TINY | {
    "num_hidden_layers": NUM_LAYERS,
    "layer_types": ["sliding_attention", "full_attention"] * (NUM_LAYERS // 2),
    "hidden_size": 128,
    "num_local_experts": 8,
    "vocab_size": 500,
}
CONFIG = parse_model_config(TINY, Path("config.json"))


def test_a_weight_depends_on_seed_role_and_layer_alone():
    whole = random_parameters(CONFIG, "mxfp4", CPU, seed=3)
    alone = random_weight(CONFIG, "down_weight", 2, 3, CPU)
    assert torch.equal(whole.layers[2].down_weight.values, alone.values)
    assert torch.equal(whole.layers[2].down_weight.scales, alone.scales)
    one = random_weight(CONFIG, "out_weight", 0, 3, CPU)
    assert torch.equal(whole.layers[0].out_weight, one)
    for other in (("out_weight", 1, 3), ("out_weight", 0, 4)):
        assert not torch.equal(one, random_weight(CONFIG, *other, CPU))
    norms = [random_weight(CONFIG, role, 0, 3, CPU) for role in ("attn_norm", "mlp_norm")]
    assert not torch.equal(*norms)


def test_both_encodings_are_the_same_network():
    packed = random_parameters(CONFIG, "mxfp4", CPU)
    wide = random_parameters(CONFIG, "bfloat16", CPU)
    for layer, other in zip(packed.layers, wide.layers, strict=True):
        assert isinstance(layer.up_weight, Mxfp4Weight)
        assert torch.equal(layer.up_weight.dequantize(torch.bfloat16), other.up_weight)
        assert torch.equal(layer.down_weight.dequantize(torch.bfloat16), other.down_weight)
    assert torch.equal(packed.embedding, wide.embedding)


@pytest.mark.parametrize("role", EXPERT_GAINS)
def test_expert_bytes(role):
    weight = random_weight(CONFIG, role, 0, 0, CPU)
    counts = torch.bincount(weight.values.flatten().int(), minlength=256)
    assert counts.min() > 0.5 * counts.float().mean()
    low, high = weight.scales.min().item(), weight.scales.max().item()
    assert high - low == 2 and (weight.scales == low + 1).any()
    std = weight.dequantize(torch.float32).std().item() * weight.shape[-1] ** 0.5
    assert 0.7 < std / EXPERT_GAINS[role] < 1.45


def test_dense_statistics():
    layer = random_parameters(CONFIG, "mxfp4", CPU).layers[0]
    assert layer.qkv_weight.float().std().item() == pytest.approx(96**-0.5, rel=0.05)
    assert layer.out_weight.float().std().item() == pytest.approx(0.3 * 128**-0.5, rel=0.05)
    assert layer.attn_norm.float().mean().item() == pytest.approx(1, abs=0.05)
    assert layer.up_bias.float().std().item() == pytest.approx(0.02, rel=0.1)
    assert layer.qkv_weight.dtype == torch.bfloat16


def test_deep_network_is_sane(monkeypatch):
    """24 layers: logits of order one, experts all used, and greedy text that is not one token."""
    config = parse_model_config(DEEP, Path("config.json"))
    parameters = random_parameters(config, "bfloat16", CPU).to(torch.float32)
    loads = []
    experts = GptOss._experts

    def counting(self, x, layer):
        normed = ops.rms_norm(x, layer.mlp_norm, config.rms_norm_eps)
        scores = ops.linear(normed, layer.router_weight, layer.router_bias)
        loads.append(ops.route(scores, config.num_active_experts).expert_offs.diff())
        return experts(self, x, layer)

    monkeypatch.setattr(GptOss, "_experts", counting)
    tokens = torch.randint(500, (192,), generator=torch.Generator().manual_seed(0)).tolist()
    scores = logits(config, parameters, tokens)
    assert 0.5 < scores.std() < 2
    assert scores.argmax(-1).unique().numel() > 100
    share = torch.stack(loads).float() / (192 * 2 / 8)
    assert share.shape == (NUM_LAYERS, 8)
    assert share.min() > 0.3 and share.max() < 2.5
    text = tokens[:4]
    for _ in range(12):
        text.append(logits(config, parameters, text)[-1].argmax().item())
    assert len(set(text[4:])) > 6
