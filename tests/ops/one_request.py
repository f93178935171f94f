"""haast-tiny that has read a prompt, about to decode: op by op, or as one step."""

import torch
from torch import Tensor

from haast import ops
from haast.config import EngineConfig
from haast.engine.load import prepare
from haast.model.checkpoint import open_checkpoint
from haast.model.gpt_oss import GptOss
from haast.model.kv_cache import KVCache
from haast.model.locate import demo_folder
from haast.model.weights import load_parameters
from haast.mxfp4 import SwizzledWeight
from haast.parallel.share import Share

PAGE = 128
MAX_LENGTH = 4096
ROW = 1
"""Of the page tables, in which other rows name a page of NaN"""


def share_of(kv: KVCache, share: Share) -> KVCache:
    """The heads that a rank has, in memory of its own."""
    heads = share.local.num_kv_heads
    own = slice(share.rank * heads, (share.rank + 1) * heads)
    return KVCache(tuple((k[:, own].contiguous(), v[:, own].contiguous()) for k, v in kv.layers))


class OneRequest:
    """A request of so many tokens whose last one is to be computed; its pages are shuffled."""

    def __init__(self, length: int, device: str) -> None:
        prepared = prepare(EngineConfig(devices=device))
        parameters = prepared.make_parameters(None)
        self.model = GptOss(prepared.config, parameters, MAX_LENGTH)
        self.length = length
        pages = -(-length // PAGE)
        generator = torch.Generator().manual_seed(length)
        self.kv = KVCache.empty(
            prepared.config, pages + 2, pages + 2, torch.bfloat16, self.model.device
        )
        for k, v in self.kv.layers:
            k.fill_(torch.nan), v.fill_(torch.nan)
        table = torch.full((2, 3, pages + 1), pages + 1, dtype=torch.int32)
        for kind in range(2):
            table[kind, ROW, :pages] = torch.randperm(pages + 1, generator=generator)[:pages].int()
        self.table = table.to(self.model.device)
        self.ids = torch.randint(4000, (length,), generator=generator).to(self.model.device)
        if length > 1:
            self._forward(0, length - 1)
        self.network = self.model.step_network(self.kv)
        self.inputs = self._inputs()

    def op_by_op(self) -> Tensor:
        """Logits [1, V]."""
        return self.model.logits(self._forward(self.length - 1, self.length))

    def share(self, size: int, rank: int) -> ops.StepNetwork:
        """What one of several ranks has of the network, its heads of the cache copied."""
        share = Share(self.model.config, size, rank)
        is_swizzled = isinstance(self.network.layers[0].up_weight, SwizzledWeight)
        parameters = load_parameters(
            open_checkpoint(demo_folder()),
            "mxfp4",
            self.model.device,
            is_swizzled=is_swizzled,
            share=share,
        )
        return GptOss(share.local, parameters, MAX_LENGTH).step_network(share_of(self.kv, share))

    def forget_newest(self) -> None:
        """The last token's key and value, which a step has to write."""
        for index, (k, v) in enumerate(self.kv.layers):
            slot = int(self._slots(index)[-1])
            k[slot // PAGE, :, slot % PAGE] = torch.nan
            v[slot // PAGE, :, slot % PAGE] = torch.nan

    def _slots(self, index: int) -> Tensor:
        kind = int(self.model.config.windows[index] is not None)
        at = torch.arange(self.length, device=self.model.device)
        return (self.table[kind, ROW][at // PAGE] * PAGE + at % PAGE).int()

    def _forward(self, start: int, stop: int) -> Tensor:
        device = self.model.device
        windows = self.model.config.windows
        full, sliding = (windows.index(w) for w in (None, max(w for w in windows if w)))
        count = stop - start
        meta = ops.StepMeta(
            positions=torch.arange(start, stop, dtype=torch.int32, device=device),
            cu_seqlens_q=torch.tensor([0, count], dtype=torch.int32, device=device),
            kv_lens=torch.tensor([stop], dtype=torch.int32, device=device),
            page_table=self.table[0, ROW : ROW + 1].clone(),
            slot_mapping=self._slots(full)[start:stop].clone(),
            window_page_table=self.table[1, ROW : ROW + 1].clone(),
            window_slot_mapping=self._slots(sliding)[start:stop].clone(),
            num_decodes=int(count == 1),
            max_query_len=0 if count == 1 else count,
        )
        pins = {} if device.type == "cuda" else {op.name: ops.REFERENCE for op in ops.MODEL_OPS}
        with ops.pin(pins), torch.inference_mode():
            return self.model.forward(self.ids[start:stop], meta, self.kv)[-1:]

    def _inputs(self) -> ops.StepInputs:
        windows = self.model.config.windows
        full, sliding = (windows.index(w) for w in (None, max(w for w in windows if w)))

        def number(value: int) -> Tensor:
            return torch.tensor([value], dtype=torch.int32, device=self.model.device)

        return ops.StepInputs(
            input_id=number(-1),
            input_row=number(2),
            samples=torch.tensor([-1, -1, int(self.ids[-1])], device=self.model.device),
            position=number(self.length - 1),
            kv_len=number(self.length),
            slot=number(int(self._slots(full)[-1])),
            window_slot=number(int(self._slots(sliding)[-1])),
            table_row=number(ROW),
            page_tables=self.table,
        )
