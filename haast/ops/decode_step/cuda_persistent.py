"""The kernel and what it keeps between steps. See cuda/decode_step.cu."""

import struct

import torch
from torch import Tensor

from haast.cuda.launcher import launch
from haast.ops.decode_step import tasks
from haast.ops.decode_step.network import MAX_LAYERS, StepInputs, StepNetwork, StepRanks

SYMBOL = "decode_step"
PERSISTENT = "cuda_persistent"
"""Its name among implementations; without it a step is computed op by op"""
PHASES = ("x", "qkv", "attention", "o", "router", "up", "gated", "down")
"""Ends of which a CTA may stamp in each layer; then, as a last layer, x and, if it has one, head"""
MOST_STAMPED = MAX_LAYERS + 1
"""Layers that stamps have room for, the head's included"""
_THREADS = 512
_SHARED_BYTES = 227 * 1024


class DecodeStep:
    """Computes decode steps of one request over one network and its KV cache.

    Its buffers are written by every step and read by the same one only: steps must not overlap, so
    they run on one stream. A step uses all SMs: its CTAs wait for each other, and do not begin
    before all of them fit. Where one waits for a second the kernel traps; where another rank may be
    why, a minute.

    network  what this rank has of it
    ranks    those that compute steps together; None = this process alone does
    """

    def __init__(self, network: StepNetwork, ranks: StepRanks | None = None) -> None:
        self._network = network
        self._ranks = ranks
        device, sizes = network.embedding.device, network.sizes
        self._buffers = _buffers(sizes, device)
        state = torch.zeros(2, dtype=torch.int32, device=device) if ranks is None else ranks.state
        self._state = state
        tensors = (
            *(network.embedding, network.norm, network.head, network.cos, network.sin),
            *self._buffers,
            state,
        )
        numbers = (
            *(len(network.layers), sizes.hidden, sizes.num_heads, sizes.num_kv_heads),
            *(sizes.intermediate, sizes.num_experts, sizes.vocab),
        )
        self._whole = _on_device(
            f"{len(tensors)}Q{len(numbers)}q2d",
            *(t.data_ptr() for t in tensors),
            *numbers,
            network.eps,
            network.swiglu_limit,
            device=device,
        )
        values = [
            value
            for layer in network.layers
            for value in (*(t.data_ptr() for t in layer.tensors), layer.window or 0)
        ]
        self._layers = _on_device(f"{len(values)}q", *values, device=device)

    @property
    def nbytes(self) -> int:
        """On the device, besides the network."""
        tensors = (*self._buffers, self._state, self._whole, self._layers)
        return sum(t.nbytes for t in tensors)

    def stamped(self, inputs: StepInputs, has_head: bool) -> Tensor:
        """Stamps of a step, zero where a CTA has none; does not wait. All ranks have to run it."""
        device = inputs.page_tables.device
        shape = (tasks.num_ctas_of(device), MOST_STAMPED, len(PHASES))
        stamps = torch.zeros(shape, dtype=torch.int64, device=device)
        if has_head:
            self(inputs, stamps)
        else:
            self.hidden(inputs, stamps)
        return stamps

    def __call__(self, inputs: StepInputs, stamps: Tensor | None = None) -> Tensor:
        """Logits [1, V] bf16; does not wait. Of several ranks, rank 0 gets those of all, in memory
        that the next step writes; what the others get is not theirs to read.

        stamps  None, or [CTAs, MOST_STAMPED, len(PHASES)] int64: when each CTA got to the end of
                each phase of each layer, in ns
        """
        ranks, vocab = self._ranks, self._network.sizes.vocab
        if ranks is None:
            logits = own = self._network.head.new_empty(vocab)
        else:
            logits = ranks.logits[: ranks.size * vocab]
            own = logits[ranks.rank * vocab :]
        self._launch(inputs, own, None, stamps)
        return logits[None]

    def hidden(self, inputs: StepInputs, stamps: Tensor | None = None) -> Tensor:
        """Hidden states [1, H] bf16, normalised, for a head that is computed apart."""
        hidden = self._network.norm.new_empty(1, self._network.sizes.hidden)
        self._launch(inputs, None, hidden, stamps)
        return hidden

    def _launch(
        self,
        inputs: StepInputs,
        logits: Tensor | None,
        hidden: Tensor | None,
        stamps: Tensor | None,
    ) -> None:
        table, ranks = inputs.page_tables, self._ranks
        launch(
            SYMBOL,
            SYMBOL if ranks is None else f"{SYMBOL}_{ranks.size}",
            grid=tasks.num_ctas_of(table.device),
            block=_THREADS,
            shared_bytes=_SHARED_BYTES,
            args=(
                *(self._whole, self._layers, inputs.input_id, inputs.input_row, inputs.samples),
                *(inputs.position, inputs.kv_len, inputs.slot, inputs.window_slot),
                *(inputs.table_row, table, logits, hidden, stamps),
                *(() if ranks is None else (ranks.inboxes,)),
                *table.shape[1:],
                *(() if ranks is None else (ranks.rank,)),
            ),
        )


def _buffers(sizes: tasks.Sizes, device: torch.device) -> tuple[Tensor, ...]:
    """In the order of `Network` in cuda/step.cuh, the state apart; tags of zero are of no step."""
    heads = sizes.num_heads
    shapes = (
        *((sizes.qkv_rows,), (heads * 64,), (sizes.hidden,), (sizes.num_experts,)),
        *((tasks.CHOICES, sizes.intermediate), (tasks.CHOICES, sizes.hidden)),
        *((tasks.MOST_SPLITS, heads, 64, 2), (tasks.MOST_SPLITS, heads, 2)),
    )
    return tuple(torch.zeros(shape, dtype=torch.int32, device=device) for shape in shapes)


def _on_device(form: str, *values: float, device: torch.device) -> Tensor:
    packed = bytearray(struct.pack(f"<{form}", *values))
    return torch.frombuffer(packed, dtype=torch.uint8).to(device)
