"""Checkpoint -> Parameters, streamed one tensor or one expert at a time; MXFP4 bytes stay bytes."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from haast.config import Encoding, EncodingWish
from haast.model.checkpoint import Checkpoint, CheckpointError
from haast.model.layouts import EXPERT_ROLES, OUTER_ROLES, Source
from haast.model.parameters import EXPERT_LAYOUTS, Parameters
from haast.model.safetensors_file import StoredTensor, read_bytes
from haast.model.shares import stored_parts
from haast.mxfp4 import GROUP, MAX_ELEMENT, MAX_SCALE, SCALE_NAN, Mxfp4Weight, dequantize, to_grid
from haast.ops import ExpertWeights, LayerParameters
from haast.parallel.share import Share

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

STAGING_BYTES = 64 << 20
READERS = 8
LEAST_PART = 4 << 20
"""Bytes that are worth a thread"""
BY_MXFP4 = f"MXFP4 cannot hold exactly within its group of {GROUP}"
BY_KERNELS = f"is beyond the largest magnitude that GPU kernels take, {MAX_ELEMENT:g}"
USE_BFLOAT16 = "load it with --quantization-encoding bfloat16"
_DTYPES = {"BF16": torch.bfloat16, "U8": torch.uint8}


def resolve_encoding(wish: EncodingWish, checkpoint: Checkpoint) -> Encoding:
    """The encoding to load experts in; `auto` keeps the one they are stored in."""
    if wish == "auto":
        return checkpoint.layout.encoding
    return "bfloat16" if wish == "bfloat16" else "mxfp4"


def load_parameters(
    checkpoint: Checkpoint,
    encoding: Encoding,
    device: torch.device,
    progress: Progress | None = None,
    *,
    is_swizzled: bool = False,
    share: Share | None = None,
) -> Parameters:
    """Read the weights onto a device.

    encoding     of the experts: mxfp4 keeps published bytes as they are and converts bf16 experts
                 if every element survives; bfloat16 dequantises, which is exact
    progress     called after each tensor or expert; the total is that of the share
    is_swizzled  hold MXFP4 experts in the order that kernels read
    share        what to read of them; None = everything, checkpoint.nbytes

    Everything is copied: no parameter aliases a file. Host memory beyond the parameters stays
    below 24 bytes times the elements of one expert's largest matrix (0.4 GB for gpt-oss, needed
    only where experts are converted on the CPU) plus STAGING_BYTES where the device is a GPU.
    Device memory beyond them stays below the published bytes of the largest expert tensor, needed
    only where it is swizzled, plus the conversion's or swizzle's scratch of one expert.

    Raises CheckpointError for a scale byte of 255 (above 128 if swizzled), an expert element that
    MXFP4 cannot hold, or a file that changed since it was opened.
    """
    config = checkpoint.config
    share = share or Share(config, size=1, rank=0)
    loader = _Loader(checkpoint, encoding, device, progress, is_swizzled, share)
    sources = {(s.role, s.layer): s for s in checkpoint.layout.sources(config)}
    return assemble(config.num_layers, lambda role, layer: loader.parameter(sources[role, layer]))


def assemble(num_layers: int, make: Callable[[str, int | None], ExpertWeights]) -> Parameters:
    """Parameters from make(role, layer), layer by layer; outer roles have layer None."""
    layers = []
    for n in range(num_layers):
        roles: dict[str, Any] = {
            field.name: make(field.name, n) for field in fields(LayerParameters)
        }
        layers.append(LayerParameters(**roles))
    outer: dict[str, Any] = {role: make(role, None) for role in OUTER_ROLES}
    return Parameters(layers=tuple(layers), **outer)


class _Loader:
    """Turns sources into parameters on one device."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        encoding: Encoding,
        device: torch.device,
        progress: Progress | None,
        is_swizzled: bool,
        share: Share,
    ) -> None:
        self.tensors = checkpoint.tensors
        self.share = share
        self.device = device
        self.progress = progress or (lambda done, total: None)
        sources = checkpoint.layout.sources(checkpoint.config)
        read = (source for source in sources if not share.is_zero(source.role))
        self.total = sum(part.nbytes for source in read for part in self._parts(source))
        self.done = 0
        self.is_swizzled = is_swizzled
        self.max_scale = MAX_SCALE if is_swizzled else SCALE_NAN - 1
        self.staging = _staging_buffer(device)
        conversions: dict[tuple[Encoding, Encoding], Callable[[Source], ExpertWeights]] = {
            ("mxfp4", "mxfp4"): self._same_bytes,
            ("mxfp4", "bfloat16"): self._dequantized,
            ("bfloat16", "bfloat16"): self._transposed,
            ("bfloat16", "mxfp4"): self._converted,
        }
        self.experts = conversions[checkpoint.layout.encoding, encoding]

    def parameter(self, source: Source) -> ExpertWeights:
        if source.role not in EXPERT_ROLES:
            return self._dense(source)
        weight = self.experts(source)
        if self.is_swizzled and isinstance(weight, Mxfp4Weight):
            return weight.swizzled(EXPERT_LAYOUTS[source.role])
        return weight

    def _parts(self, source: Source) -> list[StoredTensor]:
        """What this rank has of a source's tensors."""
        return stored_parts(source, self.tensors, self.share)

    def _dense(self, source: Source) -> Tensor:
        """Tensors stacked by rows."""
        parts = self._parts(source)
        rows = [part.shape[0] for part in parts]
        out = self._empty((sum(rows), *parts[0].shape[1:]), torch.bfloat16)
        if self.share.is_zero(source.role):
            return out.zero_()
        for part, place in zip(parts, torch.split(out, rows), strict=True):
            self._fill(place, part)
        return out

    def _same_bytes(self, source: Source) -> Mxfp4Weight:
        blocks, scales = self._parts(source)
        weight = Mxfp4Weight(values=self._read(blocks).flatten(-2), scales=self._read(scales))
        _check_scales(weight.scales, scales, [], self.max_scale)
        return weight

    def _dequantized(self, source: Source) -> Tensor:
        blocks, scales = self._parts(source)
        num_experts, n, num_groups = scales.shape
        out = self._empty((num_experts, n, num_groups * GROUP), torch.bfloat16)
        for expert in range(num_experts):
            scale_bytes = self._read(scales[expert])
            _check_scales(scale_bytes, scales, [expert], SCALE_NAN - 1)
            out[expert] = dequantize(self._read(blocks[expert]).flatten(-2), scale_bytes)
        return out

    def _transposed(self, source: Source) -> Tensor:
        (stored,) = self._parts(source)
        num_experts, k, n = stored.shape
        out = self._empty((num_experts, n, k), torch.bfloat16)
        for expert in range(num_experts):
            out[expert] = self._read(stored[expert]).T
        return out

    def _converted(self, source: Source) -> Mxfp4Weight:
        (stored,) = self._parts(source)
        num_experts, k, n = stored.shape
        weight = Mxfp4Weight(
            values=self._empty((num_experts, n, k // 2), torch.uint8),
            scales=self._empty((num_experts, n, k // GROUP), torch.uint8),
        )
        for expert in range(num_experts):
            matrix = self._read(stored[expert])
            _check_held(torch.isfinite(matrix), matrix, stored, expert, BY_MXFP4)
            values, scales, exact = to_grid(matrix.T.contiguous())
            _check_held(exact.T, matrix, stored, expert, BY_MXFP4)
            if self.is_swizzled:
                _check_held(matrix.abs() <= MAX_ELEMENT, matrix, stored, expert, BY_KERNELS)
            weight.values[expert], weight.scales[expert] = values, scales
        return weight

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def _read(self, stored: StoredTensor) -> Tensor:
        out = self._empty(stored.shape, _DTYPES[stored.dtype])
        self._fill(out, stored)
        return out

    def _fill(self, out: Tensor, stored: StoredTensor) -> None:
        """Stored bytes into a contiguous tensor, by way of the staging buffer for a GPU."""
        place = out.view(torch.uint8).flatten()
        if self.staging is None:
            read_in_parts(stored, 0, place)
        else:
            for start in range(0, stored.nbytes, len(self.staging)):
                chunk = self.staging[: stored.nbytes - start]
                read_in_parts(stored, start, chunk)
                place[start : start + len(chunk)].copy_(chunk)
        self.done += stored.nbytes
        self.progress(self.done, self.total)


def read_in_parts(stored: StoredTensor, start: int, out: Tensor) -> None:
    """Fill `out`, uint8 in host memory, with the tensor's bytes from `start` on.

    Threads share a large one: copying out of the page cache is what takes the time.
    """
    size = max(LEAST_PART, -(-len(out) // READERS))
    if len(out) <= size:
        read_bytes(stored, start, out)
        return
    with ThreadPoolExecutor(READERS) as readers:
        begins = range(0, len(out), size)
        read = lambda begin: read_bytes(stored, start + begin, out[begin : begin + size])
        deque(readers.map(read, begins), maxlen=0)


def _staging_buffer(device: torch.device) -> Tensor | None:
    """Page-locked host memory on the way to a GPU; the CPU needs none."""
    if device.type == "cpu":
        return None
    return torch.empty(STAGING_BYTES, dtype=torch.uint8, pin_memory=True)


def _check_scales(scales: Tensor, stored: StoredTensor, prefix: list[int], limit: int) -> None:
    """`scales` are those of `stored`, or of its slice at index `prefix`; `limit` is allowed."""
    bad = scales > limit
    if not bad.any():
        return
    index = bad.nonzero()[0].tolist()
    byte = scales[*index].item()
    what = f"has scale byte {byte}{' (NaN)' if byte == SCALE_NAN else ''} at {prefix + index}"
    hint = "" if byte == SCALE_NAN else f"; GPU kernels take 0..{limit}; {USE_BFLOAT16}"
    raise CheckpointError(f"{stored.file}: tensor '{stored.name}' {what}{hint}")


def _check_held(
    is_held: Tensor, matrix: Tensor, stored: StoredTensor, expert: int, by: str
) -> None:
    """`is_held` and `matrix` [K, N] of one expert, as stored."""
    if is_held.all():
        return
    k, n = (~is_held).nonzero()[0].tolist()
    raise CheckpointError(
        f"{stored.file}: tensor '{stored.name}' at {[expert, k, n]} is {matrix[k, n].item():g}, "
        f"which {by}; {USE_BFLOAT16}"
    )
