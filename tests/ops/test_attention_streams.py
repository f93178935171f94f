"""rope_kv_write and attention one after another: each started before the last has ended, and in
CUDA graphs whose lengths, pages and positions change between replays. Runs on a Hopper GPU only.
"""

from dataclasses import fields, replace

import pytest
import torch

from haast.bench.cases import Draw
from haast.bench.steps import decode_step
from haast.ops import StepMeta, attention, rope_kv_write, rope_tables

from .attention_gpu import CACHES, hopper  # noqa: F401 (a fixture)
from .gpu_cases import DEVICE, none_wrong
from .test_moe_kernels_streams import capture, differences
from .test_rope import CONFIG

pytestmark = pytest.mark.usefixtures("hopper")
HEADS, KV_HEADS, LAYERS, WINDOW = 24, 3, 12, 128
LENGTHS = (1, 5, 128, 129, 300, 900, 2000, 3000)
REPLAYS = 60


def step(seed, num_chunk=0):
    """A decode step of requests of random lengths, the last a chunk of so many tokens."""
    generator = torch.Generator().manual_seed(seed)
    meta = decode_step(DEVICE, len(LENGTHS), max(LENGTHS))
    order = torch.randperm(len(LENGTHS), generator=generator)
    lens = torch.tensor(LENGTHS)[order].int()
    pages = torch.randperm(meta.page_table.numel(), generator=generator).int()
    table = pages.view(meta.page_table.shape)
    counts = torch.ones(len(LENGTHS), dtype=torch.int32)
    if num_chunk:
        counts[-1], lens[-1] = num_chunk, max(LENGTHS)
    request = torch.repeat_interleave(torch.arange(len(LENGTHS)), counts)
    back = torch.cat([torch.arange(count - 1, -1, -1) for count in counts.tolist()])
    positions = (lens[request] - 1 - back).int()
    slots = table[request, positions // 128] * 128 + positions % 128
    tensors = {
        "positions": positions,
        "cu_seqlens_q": torch.cat((torch.zeros(1), counts.cumsum(0))).int(),
        "kv_lens": lens,
        "page_table": table,
        "slot_mapping": slots,
        "window_page_table": table,
        "window_slot_mapping": slots,
    }
    return StepMeta(
        **{name: value.to(DEVICE) for name, value in tensors.items()},
        num_decodes=len(LENGTHS) - bool(num_chunk),
        max_query_len=num_chunk,
    )


class Network:
    """Layers of attention alone; the projection between two of them only moves heads."""

    def __init__(self, dtype):
        draw = Draw.on(DEVICE)
        num_pages = len(LENGTHS) * -(-max(LENGTHS) // 128)
        shape = (2, num_pages, KV_HEADS, 128, 64)
        self.start = [draw.normal(*shape).to(dtype) for _ in range(LAYERS)]
        self.caches = [torch.empty_like(cache) for cache in self.start]
        self.sinks = [draw.normal(HEADS) for _ in range(LAYERS)]
        tables = rope_tables(CONFIG.rope, 64, max(LENGTHS))
        self.tables = [table.to(DEVICE) for table in tables]

    def reset(self):
        for cache, start in zip(self.caches, self.start, strict=True):
            cache.copy_(start)

    def run(self, qkv, meta, rest=lambda: None):
        """Every layer's result, and what its cache then holds."""
        seen = []
        for layer, (cache, sinks) in enumerate(zip(self.caches, self.sinks, strict=True)):
            rest()
            q = rope_kv_write(qkv, meta.positions, *self.tables, *cache, meta.slot_mapping)
            rest()
            out = attention(q, *cache, sinks, meta, WINDOW if layer % 2 == 0 else None)
            seen.append(out)
            kv = out[:, : 2 * KV_HEADS]
            qkv = torch.cat((out, kv), 1).flatten(1)
        return seen


@pytest.fixture(scope="module", params=CACHES, ids=str)
def network(hopper, request):  # noqa: F811
    return Network(request.param)


def inputs(meta, seed):
    return Draw.on(DEVICE, seed).normal(len(meta.positions), (HEADS + 2 * KV_HEADS) * 64)


def copy_into(meta, other):
    for field in fields(meta):
        value = getattr(meta, field.name)
        if isinstance(value, torch.Tensor):
            value.copy_(getattr(other, field.name))


@pytest.mark.parametrize("num_chunk", [0, 2, 200])
def test_chain_without_waiting(network, num_chunk):
    wrong = torch.zeros(REPLAYS, dtype=torch.int64, device=DEVICE)
    for launch in range(REPLAYS):
        meta = step(launch % 6, num_chunk)
        qkv = inputs(meta, launch % 6)
        network.reset()
        expected = network.run(qkv, meta, torch.cuda.synchronize)
        network.reset()
        wrong[launch] = differences(network.run(qkv, meta), expected)
    none_wrong(wrong)


def test_a_graph_serves_any_lengths_and_pages(network):
    """Nothing of a step is read on the host but its counts."""
    meta = step(0)
    held = replace(
        meta,
        **{
            field.name: getattr(meta, field.name).clone()
            for field in fields(meta)
            if isinstance(getattr(meta, field.name), torch.Tensor)
        },
    )
    qkv = inputs(meta, 0)
    network.reset()
    replay, results = capture(lambda: network.run(qkv, held))
    wrong = torch.zeros(REPLAYS, dtype=torch.int64, device=DEVICE)
    for launch in range(REPLAYS):
        other = step(launch % 6)
        rows = inputs(other, launch % 6)
        network.reset()
        expected = network.run(rows, other, torch.cuda.synchronize)
        network.reset()
        copy_into(held, other)
        qkv.copy_(rows)
        replay()
        wrong[launch] = differences(results, expected)
    none_wrong(wrong)
    assert all(result.isfinite().all() for result in results)
