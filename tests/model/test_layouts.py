"""The three layouts against what is published."""

import json
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path

import pytest

from haast.model.config_file import parse_model_config
from haast.model.layouts import (
    EXPERT_ROLES,
    HF_BF16,
    HF_MXFP4,
    LAYOUTS,
    ORIGINAL,
    OUTER_ROLES,
    detect_layout,
    role_axes,
)
from haast.model.parameters import Parameters
from haast.ops import LayerParameters

from .helpers import TINY


def published(size):
    text = (files("haast") / "data" / f"gpt-oss-{size}" / "config.json").read_text()
    return parse_model_config(json.loads(text), Path("config.json"))


def specs_of(layout, config):
    return {spec.name: spec for source in layout.sources(config) for spec in source.tensors}


@pytest.mark.parametrize("size, nbytes", [("20b", 13_761_264_768), ("120b", 65_248_815_744)])
def test_sizes_equal_the_total_size_of_the_published_index(size, nbytes):
    for layout in (HF_MXFP4, ORIGINAL):
        assert sum(source.nbytes for source in layout.sources(published(size))) == nbytes


@pytest.mark.parametrize("layout, count", [(HF_MXFP4, 459), (ORIGINAL, 363), (HF_BF16, 411)])
def test_number_of_tensors_of_20b(layout, count):
    assert len(specs_of(layout, published("20b"))) == count


@pytest.mark.parametrize(
    "layout, name, shape, dtype",
    [
        (HF_MXFP4, "model.layers.23.self_attn.k_proj.weight", (512, 2880), "BF16"),
        (HF_MXFP4, "model.layers.0.mlp.experts.gate_up_proj_blocks", (32, 5760, 90, 16), "U8"),
        (HF_MXFP4, "model.layers.0.mlp.experts.down_proj_scales", (32, 2880, 90), "U8"),
        (HF_MXFP4, "lm_head.weight", (201088, 2880), "BF16"),
        (ORIGINAL, "block.0.attn.qkv.weight", (5120, 2880), "BF16"),
        (ORIGINAL, "block.7.mlp.mlp1_weight.blocks", (32, 5760, 90, 16), "U8"),
        (ORIGINAL, "block.7.mlp.mlp1_weight.scales", (32, 5760, 90), "U8"),
        (ORIGINAL, "block.7.mlp.mlp2_bias", (32, 2880), "BF16"),
        (ORIGINAL, "unembedding.weight", (201088, 2880), "BF16"),
        (HF_BF16, "model.layers.3.mlp.experts.gate_up_proj", (32, 2880, 5760), "BF16"),
        (HF_BF16, "model.layers.3.mlp.experts.down_proj", (32, 2880, 2880), "BF16"),
    ],
)
def test_published_tensors(layout, name, shape, dtype):
    spec = specs_of(layout, published("20b"))[name]
    assert (spec.shape, spec.dtype) == (shape, dtype)


def test_unequal_sizes_land_on_the_right_axes():
    config = parse_model_config(TINY, Path("config.json"))
    shapes = {name: spec.shape for name, spec in specs_of(HF_BF16, config).items()}
    assert shapes["model.layers.0.mlp.experts.gate_up_proj"] == (5, 96, 128)
    assert shapes["model.layers.0.mlp.experts.down_proj"] == (5, 64, 96)
    assert shapes["model.layers.0.self_attn.o_proj.weight"] == (96, 128)
    shapes = {name: spec.shape for name, spec in specs_of(ORIGINAL, config).items()}
    assert shapes["block.0.mlp.mlp1_weight.blocks"] == (5, 128, 3, 16)
    assert shapes["block.0.mlp.mlp2_weight.blocks"] == (5, 96, 2, 16)
    assert shapes["block.0.attn.qkv.bias"] == ((8 + 2 * 2) * 16,)


def test_every_role_is_a_field_and_every_field_a_role():
    layer_roles = {field.name for field in fields(LayerParameters)}
    assert {field.name for field in fields(Parameters)} - {"layers"} == set(OUTER_ROLES)
    assert set(role_axes(published("20b"))) == layer_roles | set(OUTER_ROLES)
    assert set(EXPERT_ROLES) < layer_roles
    for layout in LAYOUTS:
        assert set(layout.layer_names) == layer_roles
        assert set(layout.outer_names) == set(OUTER_ROLES)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_layout_is_told_by_names_alone(layout):
    config = replace(published("20b"), num_layers=12)
    names = specs_of(layout, config)
    assert detect_layout(names) is layout
    assert {layout.layer_of(name) for name in names} == {None, *range(12)}
    assert detect_layout(["model.layers.0.mlp.gate.weight", "lm_head.weight"]) is None
