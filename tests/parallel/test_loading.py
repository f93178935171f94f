"""Each rank reads and holds its share, and no more."""

import os
from dataclasses import fields

import pytest
import torch

from haast.model import safetensors_file
from haast.model.checkpoint import open_checkpoint
from haast.model.random_weights import random_parameters
from haast.model.weights import load_parameters
from haast.mxfp4 import Mxfp4Weight, SwizzledWeight
from haast.ops import LayerParameters
from haast.parallel.share import ONCE, shares_of

from ..model.conftest import tiny  # noqa: F401

CPU = torch.device("cpu")
SIZE = 2


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(safetensors_file, "DISK_PAGE", 1)


@pytest.fixture
def read(monkeypatch):
    """Bytes that preadv gave so far, in a list of one."""
    total, preadv = [0], os.preadv

    def counted(*args):
        count = preadv(*args)
        total[0] += count
        return count

    monkeypatch.setattr(os, "preadv", counted)
    return total


def numbers(weight):
    is_packed = isinstance(weight, Mxfp4Weight | SwizzledWeight)
    return weight.dequantize(torch.float32) if is_packed else weight.float()


def roles(parameters):
    """(role, layer) -> numbers."""
    found = {
        (field.name, index): numbers(getattr(layer, field.name))
        for index, layer in enumerate(parameters.layers)
        for field in fields(LayerParameters)
    }
    outer = ("embedding", "norm", "lm_head")
    return found | {(role, None): numbers(getattr(parameters, role)) for role in outer}


def assert_joined(parts, whole, shares):
    """Shares side by side are the whole; what rank 0 adds is zero elsewhere."""
    for key, expected in roles(whole).items():
        found = [roles(part)[key] for part in parts]
        cuts = [share.cut(key[0]) for share in shares]
        if key[0] in ONCE:
            assert torch.equal(found[0], expected) and not found[1].any() and expected.any()
        elif cuts[0] is None:
            assert all(torch.equal(part, expected) for part in found)
        else:
            joined = torch.full_like(expected, torch.nan)
            for cut, part in zip(cuts, found, strict=True):
                sizes = [stop - start for start, stop in cut.ranges]
                for (start, stop), piece in zip(
                    cut.ranges, part.split(sizes, cut.axis), strict=True
                ):
                    joined.narrow(cut.axis, start, stop - start).copy_(piece)
            assert torch.equal(joined, expected), key


@pytest.mark.parametrize("encoding", ["mxfp4", "bfloat16"])
@pytest.mark.parametrize("layout", ["hf", "original", "bf16"])
def test_shares_make_the_whole(tiny, exact, layout, encoding):  # noqa: F811
    checkpoint = open_checkpoint(tiny / layout)
    shares = shares_of(checkpoint.config, None, SIZE)
    parts = [load_parameters(checkpoint, encoding, CPU, share=share) for share in shares]
    assert_joined(parts, load_parameters(checkpoint, encoding, CPU), shares)


def test_narrow_pieces_are_picked_out_of_whole_lines(tiny, monkeypatch):  # noqa: F811
    monkeypatch.setattr(safetensors_file, "SCRATCH_BYTES", 1000)
    checkpoint = open_checkpoint(tiny / "hf")
    shares = shares_of(checkpoint.config, None, SIZE)
    parts = [load_parameters(checkpoint, "mxfp4", CPU, share=share) for share in shares]
    assert_joined(parts, load_parameters(checkpoint, "mxfp4", CPU), shares)


def test_swizzled_shares(tiny):  # noqa: F811
    checkpoint = open_checkpoint(tiny / "hf")
    shares = shares_of(checkpoint.config, None, SIZE)
    parts = [
        load_parameters(checkpoint, "mxfp4", CPU, is_swizzled=True, share=share) for share in shares
    ]
    assert isinstance(parts[0].layers[0].down_weight, SwizzledWeight)
    assert parts[0].layers[0].down_weight.k == 32
    assert_joined(parts, load_parameters(checkpoint, "mxfp4", CPU), shares)


@pytest.mark.parametrize("encoding", ["mxfp4", "bfloat16"])
def test_random_shares_make_the_whole(tiny, encoding):  # noqa: F811
    config = open_checkpoint(tiny / "hf").config
    shares = shares_of(config, None, SIZE)
    parts = [random_parameters(config, encoding, CPU, share=share) for share in shares]
    assert_joined(parts, random_parameters(config, encoding, CPU), shares)


@pytest.mark.parametrize("layout", ["hf", "original", "bf16"])
def test_a_rank_reads_its_own_bytes_only(tiny, exact, read, layout):  # noqa: F811
    """Every byte that is split is read once over all ranks; progress ends at all of them."""
    checkpoint = open_checkpoint(tiny / layout)
    encoding = checkpoint.layout.encoding
    shares = shares_of(checkpoint.config, None, SIZE)
    counts, told = [], []
    for share in shares:
        read[0] = 0
        load_parameters(checkpoint, encoding, CPU, lambda *at: told.append(at), share=share)
        counts.append(read[0])
        assert told[-1] == (read[0], read[0])
    sources = [*checkpoint.layout.sources(checkpoint.config)]
    everywhere = sum(s.nbytes for s in sources if shares[0].cut(s.role) is None)
    once = sum(s.nbytes for s in sources if s.role in ONCE)
    assert sum(counts) == checkpoint.nbytes + everywhere - once
    assert counts[0] - counts[1] == once


def test_rows_of_a_page_or_more_are_read_in_pieces(tmp_path, read):
    """Of a file of 8 lines of two pages each, the second half of every line."""
    data = torch.randint(256, (8, 8192), generator=torch.manual_seed(0), dtype=torch.uint8)
    (tmp_path / "file").write_bytes(bytes(100) + data.numpy().tobytes())
    stored = safetensors_file.StoredTensor(
        "x", tmp_path / "file", "U8", (8, 8192), 100, data.nbytes
    )
    part = stored.cut(1, 4096, 8192)
    out = torch.empty(7 * 4096, dtype=torch.uint8)
    safetensors_file.read_bytes(part, 2048, out)
    assert torch.equal(out, data[:, 4096:].flatten()[2048:][: 7 * 4096])
    assert read[0] == 7 * 4096
    safetensors_file.read_bytes(part[7], 0, out[:4096])
    assert torch.equal(out[:4096], data[7, 4096:])
