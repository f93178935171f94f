"""The safetensors container: headers read and checked, tensor bytes read and written.

A file is an 8-byte little-endian header length, a JSON header (name -> dtype, shape, byte range)
and the bytes of all tensors without gaps. Bytes are read with pread into memory we own, so that
nothing is mapped, tensors can be read in parts, and several threads may read the same file.
Source: https://github.com/huggingface/safetensors, README, Format.
"""

import ctypes
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from haast.errors import HaastError
from haast.model.layouts import ITEM_SIZES, TensorSpec

LENGTH_BYTES = 8
ALIGNMENT = 8
DISK_PAGE = 4096
SCRATCH_BYTES = 4 << 20
_LFS_POINTER = b"version "


class CheckpointError(HaastError):
    """A checkpoint cannot be used as it is; one line that names the file, the tensor and why."""


@dataclass(frozen=True)
class StoredTensor:
    """Where the bytes of a tensor are: together, or in pieces of one size at one distance."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """bytes from the start of the file"""
    nbytes: int
    """its own, without what lies between pieces"""
    piece: int = 0
    """bytes of a piece; 0 = all are together"""
    pitch: int = 0
    """bytes from one piece to the next"""

    def __getitem__(self, index: int) -> "StoredTensor":
        """One slice along the first axis; its name stays that of the whole."""
        nbytes = self.nbytes // self.shape[0]
        if self.piece > nbytes:  # the pieces were cut along the first axis
            raise IndexError(f"tensor '{self.name}' lies in pieces of several slices")
        step = nbytes // self.piece * self.pitch if self.piece else nbytes
        offset = self.offset + index * step
        return replace(self, shape=self.shape[1:], offset=offset, nbytes=nbytes)

    def cut(self, axis: int, start: int, stop: int) -> "StoredTensor":
        """Entries start..stop of one axis of a tensor whose bytes are together."""
        assert not self.piece and 0 <= start <= stop <= self.shape[axis], (self, axis, start, stop)
        row = self.nbytes // math.prod(self.shape[: axis + 1])
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        return replace(
            self,
            shape=shape,
            offset=self.offset + start * row,
            nbytes=self.nbytes // self.shape[axis] * (stop - start),
            piece=(stop - start) * row if axis else 0,
            pitch=self.shape[axis] * row if axis else 0,
        )

    def spans(self, start: int, count: int) -> Iterator[tuple[int, int]]:
        """Where in the file `count` of its bytes from `start` on lie: (offset, bytes) each."""
        if not self.piece:
            yield self.offset + start, count
            return
        while count:
            index, within = divmod(start, self.piece)
            some = min(count, self.piece - within)
            yield self.offset + index * self.pitch + within, some
            start, count = start + some, count - some


def read_header(file: Path) -> list[StoredTensor]:
    """The tensors of a file, from its header alone.

    Raises CheckpointError if the file cannot be read, is truncated or has a broken header.
    """
    try:
        with file.open("rb") as stream:
            header, start = _header(file, stream)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from None
    fields = sorted(header.items(), key=lambda item: _begin(item[1]))
    tensors = [_stored(file, name, entry, start) for name, entry in fields]
    _check_ranges(file, tensors, start)
    return tensors


def _header(file: Path, stream: BinaryIO) -> tuple[dict[str, Any], int]:
    """The parsed header without its metadata, and where the tensor bytes start."""
    size = os.fstat(stream.fileno()).st_size
    prefix = stream.read(LENGTH_BYTES)
    if prefix == _LFS_POINTER:
        raise CheckpointError(f"{file}: a Git LFS pointer, not the weights; run 'git lfs pull'")
    length = int.from_bytes(prefix, "little")
    if len(prefix) < LENGTH_BYTES or length > size - LENGTH_BYTES:
        raise CheckpointError(
            f"{file}: truncated, or not a safetensors file: "
            f"it announces a header of {length} bytes and has {size} bytes in all"
        )
    try:
        header = json.loads(stream.read(length))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: broken safetensors header ({error})") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: broken safetensors header (not a JSON object)")
    header.pop("__metadata__", None)
    return header, LENGTH_BYTES + length


def _begin(entry: Any) -> int:
    """Sort key that leaves malformed entries to `_stored`."""
    try:
        return int(entry["data_offsets"][0])
    except (TypeError, KeyError, IndexError, ValueError):
        return 0


def _stored(file: Path, name: str, entry: Any, start: int) -> StoredTensor:
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
        begin, end = (int(offset) for offset in entry["data_offsets"])
    except (TypeError, KeyError, ValueError):
        raise CheckpointError(
            f"{file}: broken safetensors header (tensor '{name}': "
            f"expected dtype, shape and data_offsets, found {json.dumps(entry)[:100]})"
        ) from None
    return StoredTensor(name, file, dtype, shape, start + begin, end - begin)


def _check_ranges(file: Path, tensors: list[StoredTensor], start: int) -> None:
    """Byte ranges must belong to the shapes and fill the file without gap or overlap."""
    end = start
    for tensor in tensors:
        if tensor.offset != end or tensor.nbytes < 0:
            raise CheckpointError(
                f"{file}: broken safetensors header (tensor '{tensor.name}' starts at byte "
                f"{tensor.offset}, expected {end})"
            )
        expected = math.prod(tensor.shape) * ITEM_SIZES.get(tensor.dtype, 0)
        if tensor.dtype in ITEM_SIZES and tensor.nbytes != expected:
            raise CheckpointError(
                f"{file}: broken safetensors header (tensor '{tensor.name}' "
                f"{tensor.dtype} {list(tensor.shape)} has {tensor.nbytes} bytes, "
                f"expected {expected})"
            )
        end += tensor.nbytes
    size = file.stat().st_size
    if size != end:
        problem = "truncated" if size < end else "too long"
        raise CheckpointError(f"{file}: {problem}: {size} bytes, expected {end}")


def read_bytes(stored: StoredTensor, start: int, out: Tensor) -> None:
    """Fill `out`, contiguous and in host memory, with the tensor's bytes from `start` on.

    What lies between pieces is not read, unless they are smaller than the pages that a disk gives
    anyway: then it takes fewer calls to read all and keep the pieces.
    Raises CheckpointError if the file ends early or cannot be read.
    """
    try:
        with stored.file.open("rb", buffering=0) as stream:
            if 0 < stored.piece < DISK_PAGE:
                _read_narrow(stream, stored, start, out.view(torch.uint8).flatten())
                return
            view = memory_of(out)
            for offset, count in stored.spans(start, len(view)):
                _read(stream, stored, offset, view[:count])
                view = view[count:]
    except OSError as error:
        raise CheckpointError(f"{stored.file}: cannot be read ({error.strerror})") from None


def _read_narrow(stream: FileIO, stored: StoredTensor, start: int, out: Tensor) -> None:
    """Bytes [N] uint8 of narrow pieces: some megabytes of the file at a time."""
    piece, pitch = stored.piece, stored.pitch
    while len(out):
        first, within = divmod(start, piece)
        count = min(-(-(within + len(out)) // piece), max(1, SCRATCH_BYTES // pitch))
        lines = torch.empty(count, pitch, dtype=torch.uint8)
        own = memory_of(lines)[: (count - 1) * pitch + piece]
        _read(stream, stored, stored.offset + first * pitch, own)
        found = lines[:, :piece].flatten()[within:][: len(out)]
        out[: len(found)] = found
        out, start = out[len(found) :], start + len(found)


def _read(stream: FileIO, stored: StoredTensor, offset: int, view: memoryview) -> None:
    while view:
        done = os.preadv(stream.fileno(), [view], offset)
        if done == 0:
            raise CheckpointError(f"{stored.file}: truncated in tensor '{stored.name}'")
        view, offset = view[done:], offset + done


def write_file(
    file: Path, specs: list[TensorSpec], chunks: Iterable[Tensor], metadata: Mapping[str, str]
) -> Iterator[int]:
    """Write a file whose tensors arrive as a stream; yields the bytes written after each chunk.

    specs     the tensors in file order
    chunks    their bytes in that order, as contiguous tensors in host memory cut anywhere
    metadata  goes into the header as it is
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for spec in specs:
        offsets = [end, end := end + spec.nbytes]
        entries[spec.name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": offsets}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(LENGTH_BYTES, "little") + header)
        for chunk in chunks:
            stream.write(memory_of(chunk))
            yield chunk.nbytes
        written = stream.tell() - LENGTH_BYTES - len(header)
    assert written == end, f"{file}: {written} bytes written, {end} announced"


def memory_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous host tensor, writable and without a copy."""
    assert tensor.is_contiguous() and tensor.device == torch.device("cpu"), tensor.stride()
    array = (ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())
    return memoryview(array).cast("B")
