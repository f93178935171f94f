"""CUDA graphs of steps that come again and again: decodes of a batch size, prompts of a length."""

from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import Tensor

from haast.engine.inputs import Layout

DECODE_SIZES = (1, 2, 4, 8, 16, 24, *range(32, 128, 16), *range(128, 513, 32))
PROMPT_SIZES = (16, 32, 64, 96, 128, 192, 256, 384, 512)
"""Tokens of a prompt that is read alone. Longer ones keep the GPU busy while the host launches"""

Captured = dict[Layout, tuple[torch.cuda.CUDAGraph, Tensor] | None]
"""Graphs by layout, and where each leaves its result"""


class StepGraphs:
    """Replays a function of a Layout that launches the same kernels on the same memory each time.

    Nothing is captured at start-up: a layout runs eagerly when it is first needed, is captured the
    next time, which takes some milliseconds, and is replayed from then on.

    function  Layout and number of decodes -> its result, read before the next call of `run`
    """

    def __init__(
        self,
        function: Callable[[Layout, int], Tensor],
        max_batch_size: int,
        max_batch_input_tokens: int,
    ) -> None:
        self._function = function
        self._decode_sizes: list[int] = [size for size in DECODE_SIZES if size < max_batch_size]
        self._decode_sizes.append(max_batch_size)
        self._prompt_sizes = [size for size in PROMPT_SIZES if size <= max_batch_input_tokens]
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.captured: Captured = {}
        """None of a layout that ran eagerly only"""

    def layout_for(self, num_requests: int, num_decodes: int, num_tokens: int) -> Layout | None:
        """The smallest layout with room for a step, None if it is not one for graphs."""
        if num_decodes == num_requests:
            size = self._decode_sizes[bisect_left(self._decode_sizes, num_requests)]
            return Layout(size, size, size)
        index = bisect_left(self._prompt_sizes, num_tokens)
        if num_requests == 1 and index < len(self._prompt_sizes):
            return Layout(self._prompt_sizes[index], 1, 1)
        return None

    def run(self, layout: Layout, num_decodes: int) -> Tensor:
        """The function's result."""
        if layout not in self.captured:
            eager = self._function(layout, num_decodes)
            self.captured[layout] = None
            return eager
        graph, result = self.captured[layout] or self._capture(layout, num_decodes)
        self.captured[layout] = graph, result
        graph.replay()
        return result

    def _capture(self, layout: Layout, num_decodes: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Without what `torch.cuda.graph` does besides: it waits for the device and collects."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                result = self._function(layout, num_decodes)
            finally:
                graph.capture_end()
        return graph, result
