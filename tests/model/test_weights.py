"""Published bytes stay bytes; every other way of loading is exact or refused."""

import json
import shutil
from dataclasses import fields
from hashlib import sha256

import pytest
import torch
from safetensors.torch import load_file, save_file

from haast.model import weights
from haast.model.checkpoint import CheckpointError, open_checkpoint
from haast.model.layouts import EXPERT_ROLES
from haast.model.random_weights import random_parameters
from haast.model.safetensors_file import read_header
from haast.model.weights import load_parameters, resolve_encoding
from haast.mxfp4 import Mxfp4Weight

from .conftest import SEED
from .helpers import CPU, logits

LAYOUTS = ("hf", "original", "bf16")
ENCODINGS = ("mxfp4", "bfloat16")
UP = "model.layers.1.mlp.experts.gate_up_proj"


def load(folder, encoding):
    return load_parameters(open_checkpoint(folder), encoding, CPU)


def damaged(tiny, tmp_path, layout, name, index, value):
    """A copy of a checkpoint with one element replaced."""
    folder = tmp_path / layout
    shutil.copytree(tiny / layout, folder, ignore=shutil.ignore_patterns("tokenizer*"))
    file = next(folder.glob("*.safetensors"))
    held = load_file(file)
    held[name][index] = value
    save_file(held, file)
    return folder


def decoded(weight):
    return weight if isinstance(weight, torch.Tensor) else weight.dequantize(torch.bfloat16)


def bits(tensor):
    """A view in which NaN and the sign of zero compare."""
    return tensor.view(torch.int16)


def assert_same(one, two):
    """Equal networks: dense bit for bit, experts by decoded value, bit for bit."""
    for role in ("embedding", "norm", "lm_head"):
        assert torch.equal(bits(getattr(one, role)), bits(getattr(two, role))), role
    for n, (layer, other) in enumerate(zip(one.layers, two.layers, strict=True)):
        for field in fields(layer):
            a, b = decoded(getattr(layer, field.name)), decoded(getattr(other, field.name))
            assert torch.equal(bits(a), bits(b)), (n, field.name)


def digest(tensor):
    return sha256(bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())).hexdigest()


def stored_digest(file, name):
    """Of the bytes in the file, found without our reader."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    begin, end = json.loads(content[8 : 8 + length])[name]["data_offsets"]
    return sha256(content[8 + length + begin : 8 + length + end]).hexdigest()


@pytest.mark.parametrize("layout", ["hf", "original"])
def test_mxfp4_bytes_are_those_of_the_file(tiny, layout):
    checkpoint = open_checkpoint(tiny / layout)
    parameters = load_parameters(checkpoint, "mxfp4", CPU)
    for source in checkpoint.layout.sources(checkpoint.config):
        if source.role in EXPERT_ROLES:
            weight = getattr(parameters.layers[source.layer], source.role)
            blocks, scales = (spec.name for spec in source.tensors)
            assert digest(weight.values) == stored_digest(checkpoint.files[0], blocks)
            assert digest(weight.scales) == stored_digest(checkpoint.files[0], scales)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_encoding_gives_the_same_network(tiny, layout, encoding):
    parameters = load(tiny / layout, encoding)
    config = open_checkpoint(tiny / layout).config
    assert_same(parameters, random_parameters(config, "mxfp4", CPU, SEED))
    for layer in parameters.layers:
        assert isinstance(layer.up_weight, Mxfp4Weight) == (encoding == "mxfp4")
        assert layer.up_weight.shape == (5, 128, 96) and layer.down_weight.shape == (5, 96, 64)
        assert encoding == "mxfp4" or layer.up_weight.is_contiguous()
        assert layer.qkv_weight.is_contiguous()


def test_logits_are_the_same_from_every_layout(tiny):
    tokens = [5, 299, 17, 4, 4, 123, 88, 260, 31, 7, 64]
    config = open_checkpoint(tiny / "hf").config
    expected = logits(config, load(tiny / "hf", "mxfp4"), tokens)
    assert expected.isfinite().all()
    for layout in LAYOUTS:
        for encoding in ENCODINGS:
            got = logits(config, load(tiny / layout, encoding), tokens)
            assert torch.equal(got, expected), (layout, encoding)


def test_qkv_rows_are_q_then_k_then_v(tiny):
    held = load_file(next((tiny / "hf").glob("*.safetensors")))
    layer = load(tiny / "hf", "mxfp4").layers[2]
    parts = [held[f"model.layers.2.self_attn.{part}_proj.weight"] for part in "qkv"]
    assert [len(part) for part in parts] == [128, 32, 32]
    assert torch.equal(layer.qkv_weight, torch.cat(parts))


def test_auto_keeps_the_stored_encoding(tiny):
    hf, bf16 = open_checkpoint(tiny / "hf"), open_checkpoint(tiny / "bf16")
    assert resolve_encoding("auto", hf) == "mxfp4"
    assert resolve_encoding("auto", bf16) == "bfloat16"
    assert resolve_encoding("float4_e2m1fnx2", bf16) == "mxfp4"
    assert resolve_encoding("bfloat16", hf) == "bfloat16"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_progress_rises_to_the_known_total(tiny, layout, encoding):
    checkpoint = open_checkpoint(tiny / layout)
    seen = []
    load_parameters(checkpoint, encoding, CPU, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (checkpoint.nbytes, checkpoint.nbytes)
    assert all(a[0] < b[0] for a, b in zip(seen, seen[1:], strict=False))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_scale_byte_255_is_refused_with_its_place(tiny, tmp_path, encoding):
    folder = damaged(tiny, tmp_path, "hf", f"{UP}_scales", (3, 100, 2), 255)
    words = rf"safetensors: tensor '{UP}_scales' has scale byte 255 \(NaN\) at \[3, 100, 2\]$"
    with pytest.raises(CheckpointError, match=words):
        load(folder, encoding)


@pytest.mark.parametrize("value, shown", [(0.1, "0.100098"), (float("nan"), "nan")])
def test_inexact_conversion_is_refused_with_its_place(tiny, tmp_path, value, shown):
    folder = damaged(tiny, tmp_path, "bf16", UP, (4, 95, 127), value)
    assert load(folder, "bfloat16").layers[1].up_weight.shape == (5, 128, 96)
    with pytest.raises(CheckpointError) as error:
        load(folder, "mxfp4")
    assert f"tensor '{UP}' at [4, 95, 127] is {shown}, which MXFP4 cannot hold" in str(error.value)
    assert "--quantization-encoding bfloat16" in str(error.value)


def test_negative_zero_survives_the_conversion(tiny, tmp_path):
    folder = damaged(tiny, tmp_path, "bf16", UP, (0, 0, 0), -0.0)
    assert_same(load(folder, "mxfp4"), load(folder, "bfloat16"))


def test_parameters_do_not_alias_the_files(tiny, tmp_path):
    folder = tmp_path / "hf"
    shutil.copytree(tiny / "hf", folder)
    parameters = load(folder, "mxfp4")
    file = next(folder.glob("*.safetensors"))
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(bytes(file.stat().st_size // 2))
    assert_same(parameters, load(tiny / "hf", "mxfp4"))


@pytest.mark.parametrize("readers, num_parts", [(2, 2), (3, 3), (8, 4), (100, 4)])
def test_threads_share_a_large_tensor(tmp_path, monkeypatch, readers, num_parts):
    """40 bytes in parts of at least 10, the last one maybe short."""
    parts, read_bytes = [], weights.read_bytes
    monkeypatch.setattr(weights, "LEAST_PART", 10)
    monkeypatch.setattr(weights, "READERS", readers)
    monkeypatch.setattr(
        weights, "read_bytes", lambda *args: parts.append(len(args[2])) or read_bytes(*args)
    )
    whole = torch.arange(40, dtype=torch.uint8)
    save_file({"a": whole}, tmp_path / "m.safetensors")
    (stored,) = read_header(tmp_path / "m.safetensors")
    out = torch.zeros(40, dtype=torch.uint8)
    weights.read_in_parts(stored, 0, out)
    assert torch.equal(out, whole) and len(parts) == num_parts and sum(parts) == 40
    rest = torch.zeros(37, dtype=torch.uint8)
    weights.read_in_parts(stored, 3, rest)
    assert torch.equal(rest, whole[3:])
    stored.file.write_bytes(stored.file.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="truncated in tensor 'a'"):
        weights.read_in_parts(stored, 0, out)


def test_reading_through_a_staging_buffer_gives_the_same(tiny, monkeypatch):
    """The way to a GPU, with a buffer smaller than most tensors and no divisor of any."""
    buffer = torch.empty(999, dtype=torch.uint8)
    monkeypatch.setattr(weights, "_staging_buffer", lambda device: buffer)
    staged = [load(tiny / layout, encoding) for layout in LAYOUTS for encoding in ENCODINGS]
    monkeypatch.undo()
    for parameters in staged:
        assert_same(parameters, load(tiny / "hf", "mxfp4"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gpu_gets_the_same_bytes(tiny, layout, encoding):
    cuda = torch.device("cuda")
    parameters = load_parameters(open_checkpoint(tiny / layout), encoding, cuda)
    assert parameters.embedding.device.type == "cuda"
    expected = load(tiny / layout, encoding)
    for role in ("embedding", "norm", "lm_head"):
        assert torch.equal(getattr(parameters, role).cpu(), getattr(expected, role))
    for layer, other in zip(parameters.layers, expected.layers, strict=True):
        for field in fields(layer):
            got, want = decoded(getattr(layer, field.name)), decoded(getattr(other, field.name))
            assert torch.equal(bits(got.cpu()), bits(want)), field.name
