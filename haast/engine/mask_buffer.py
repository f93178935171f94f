"""MaskBuffer: the masks of a step, from the host to the device in one copy."""

import torch
from torch import Tensor

from haast import ops
from haast.engine.inputs import ALIGNMENT


class MaskBuffer:
    """Which mask each sampling row has, then the masks; see `haast.engine.masks`.

    The memory is taken when a mask is first asked for: 25 kB a row at 201,088 tokens. It is used
    again by the next step that has masks, which are made after this one was waited for.
    """

    def __init__(self, max_rows: int, vocab_size: int, device: torch.device) -> None:
        self._device = device
        self._num_words = -(-vocab_size // 32)
        self._header = -(-max_rows // ALIGNMENT) * ALIGNMENT
        self._size = self._header + max_rows * self._num_words
        self._on_host: Tensor | None = None
        self._on_device: Tensor | None = None

    def masks(self, num_masks: int) -> memoryview:
        """Bytes for so many masks, to be filled before `send`."""
        if self._on_host is None:
            is_cuda = self._device.type == "cuda"
            self._on_host = torch.zeros(self._size, dtype=torch.int32, pin_memory=is_cuda)
            self._on_device = torch.zeros(self._size, dtype=torch.int32, device=self._device)
        stop = self._header + num_masks * self._num_words
        return self._on_host[self._header : stop].numpy().data.cast("B")

    def send(self, rows: list[int], num_samples: int) -> ops.Masks:
        """The masks on the device; does not wait.

        rows  the sampling rows that have the masks, in order
        """
        assert self._on_host is not None and self._on_device is not None
        mask_row = self._on_host.numpy()[:num_samples]
        mask_row[:] = -1
        mask_row[rows] = range(len(rows))
        stop = self._header + len(rows) * self._num_words
        self._on_device[:stop].copy_(self._on_host[:stop], non_blocking=True)
        allowed = self._on_device[self._header : stop].view(len(rows), self._num_words)
        return ops.Masks(allowed=allowed, mask_row=self._on_device[:num_samples])
