"""Our reader and writer against the safetensors library, and every way a file can be broken."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from haast.model.layouts import Axis, TensorSpec
from haast.model.safetensors_file import CheckpointError, read_bytes, read_header, write_file

TENSORS = {
    "a": torch.arange(6, dtype=torch.uint8).view(2, 3),
    "b": torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).bfloat16(),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    return path


def set_header(path, header: bytes, data: bytes = b""):
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def entry(dtype="U8", shape=(4,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_reads_what_the_library_wrote(file):
    stored = {tensor.name: tensor for tensor in read_header(file)}
    assert set(stored) == set(TENSORS)
    for name, tensor in TENSORS.items():
        out = torch.empty_like(tensor)
        read_bytes(stored[name], 0, out)
        assert torch.equal(out, tensor)


def test_reads_one_slice_and_a_part_of_it(file):
    stored = {tensor.name: tensor for tensor in read_header(file)}["b"]
    row = torch.empty(4, dtype=torch.bfloat16)
    read_bytes(stored[3], 0, row)
    assert torch.equal(row, TENSORS["b"][3])
    last = torch.empty(1, dtype=torch.bfloat16)
    read_bytes(stored[3], 6, last)
    assert torch.equal(last, TENSORS["b"][3, 3:])


def test_the_library_reads_what_we_wrote(tmp_path):
    path = tmp_path / "x.safetensors"
    specs = [
        TensorSpec("a", "U8", (Axis(2, ""), Axis(3, ""))),
        TensorSpec("b", "BF16", (Axis(5, ""), Axis(4, ""))),
    ]
    chunks = [TENSORS["a"], TENSORS["b"][:2], TENSORS["b"][2:]]
    assert list(write_file(path, specs, chunks, {"format": "pt"})) == [6, 16, 24]
    loaded = load_file(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())


def test_truncated_file(file):
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    with pytest.raises(CheckpointError) as error:
        read_header(file)
    expected = f"{file}: truncated: {len(whole) - 3} bytes, expected {len(whole)}"
    assert str(error.value) == expected


def test_file_that_shrinks_after_it_was_opened(file):
    stored = read_header(file)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=f"truncated in tensor '{stored[-1].name}'"):
        read_bytes(stored[-1], 0, torch.empty(stored[-1].nbytes, dtype=torch.uint8))


def test_file_that_vanishes_after_it_was_opened(file):
    stored = read_header(file)
    file.unlink()
    with pytest.raises(CheckpointError, match="model.safetensors: cannot be read"):
        read_bytes(stored[0], 0, torch.empty(stored[0].nbytes, dtype=torch.uint8))


@pytest.mark.parametrize(
    "content, words",
    [
        (b"abc", "has 3 bytes in all"),
        (b"GGUF\3\0\0\0" + bytes(100), "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_not_a_safetensors_file(tmp_path, content, words):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_header(path)


@pytest.mark.parametrize(
    "header, words",
    [
        (b"{not json}", "broken safetensors header"),
        (b"\xff\xfe\xfd", "broken safetensors header"),
        (b"[1, 2]", "not a JSON object"),
        (json.dumps({"a": 3}).encode(), "tensor 'a': expected dtype, shape and data_offsets"),
        (json.dumps({"a": {"dtype": "U8"}}).encode(), "tensor 'a': expected dtype"),
        (json.dumps({"a": entry(shape=(5,))}).encode(), r"\[5\] has 4 bytes, expected 5"),
        (json.dumps({"a": entry(offsets=(1, 5))}).encode(), "tensor 'a' starts at byte"),
        (json.dumps({"a": entry(), "b": entry()}).encode(), "tensor 'b' starts at byte"),
        (json.dumps({"a": entry(shape=(3,), offsets=(0, 3))}).encode(), "too long"),
    ],
)
def test_broken_header(tmp_path, header, words):
    path = tmp_path / "x.safetensors"
    set_header(path, header, data=bytes(4))
    with pytest.raises(CheckpointError, match=words) as error:
        read_header(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
