"""Which experts a replayed decode step wants: what its routing left in the graph's memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from haast import ops
from haast.engine.load import Loaded
from haast.model.kv_cache import KVCache


class GraphExperts:
    """Expert offsets of captured decode steps; in memory they are those of the last replay."""

    def __init__(self) -> None:
        self._captured: dict[int, list[Tensor]] = {}
        self._now: list[Tensor] | None = None

    def note_step(self, num_tokens: int, meta: ops.StepMeta) -> None:
        """Called before each forward pass."""
        self._now = None
        if meta.max_query_len == 0 and torch.cuda.is_current_stream_capturing():
            self._now = self._captured[num_tokens] = []

    def note_layer(self, routing: ops.Routing) -> None:
        """Called for each layer; as long as a tensor is kept no later kernel gets its memory."""
        if self._now is not None:
            self._now.append(routing.expert_offs)

    def snapshot(self, batch: int) -> Tensor | None:
        """Offsets [layers, E + 1] of the last step of a batch; None if it was not captured."""
        sizes = [size for size, found in self._captured.items() if size >= batch and found]
        return torch.stack(self._captured[min(sizes)]) if sizes else None


@contextmanager
def graph_experts(loaded: Loaded) -> Iterator[GraphExperts]:
    """GraphExperts of what is captured within the block."""
    found = GraphExperts()
    route, model = ops.route, loaded.model

    def forward(token_ids: Tensor, meta: ops.StepMeta, kv: KVCache) -> Tensor:
        found.note_step(len(token_ids), meta)
        return type(model).forward(model, token_ids, meta, kv)

    def noted(*args: Any, **kwargs: Any) -> ops.Routing:
        routing: ops.Routing = route(*args, **kwargs)
        found.note_layer(routing)
        return routing

    model.forward = forward  # type: ignore[method-assign]
    ops.route = noted  # type: ignore[assignment]
    try:
        yield found
    finally:
        ops.route = route
        del model.forward  # the class's own is found again
