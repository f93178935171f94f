"""What attention's kernels refuse, and what they decline, in words; tensors are on `meta`."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from haast.bench.cases import BUILDERS, Draw, read_config
from haast.ops import attention, rope_kv_write

TINY = Path(__file__).parents[2] / "haast" / "demo" / "haast-tiny"
CONFIG = read_config(str(TINY))
META = Draw.on(torch.device("meta"))
NAMES = ("q", "k_cache", "v_cache", "sinks", "meta", "window")
ROPE_NAMES = ("qkv", "positions", "cos", "sin", "k_cache", "v_cache", "slot_mapping")


def call(num_tokens=3, **changes):
    """Arguments of attention, some of them changed."""
    arguments = dict(zip(NAMES, BUILDERS["attention"](META, CONFIG, num_tokens), strict=True))
    for name, value in changes.items():
        if name in NAMES:
            arguments[name] = value
        else:
            arguments["meta"] = replace(arguments["meta"], **{name: value})
    return arguments.values()


def rope_call(**changes):
    arguments = dict(zip(ROPE_NAMES, BUILDERS["rope_kv_write"](META, CONFIG, 3), strict=True))
    return (arguments | changes).values()


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def ints(*shape):
    return empty(*shape, dtype=torch.int32)


HEADS, KV_HEADS = CONFIG.num_heads, CONFIG.num_kv_heads
CACHE = (24, KV_HEADS, 128, 64)


@pytest.mark.parametrize("kernel", attention.kernels, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"q": empty(3, HEADS)}, "q must have shape ['*', '*', '*']"),
        ({"q": empty(HEADS, 3, 64).transpose(0, 1)}, "q must be contiguous"),
        ({"v_cache": empty(*CACHE[:2], 64, 64)}, "v_cache must have shape [24, "),
        ({"v_cache": empty(*CACHE, dtype=torch.float32)}, "v_cache must be torch.bfloat16"),
        ({"k_cache": empty(*CACHE[:3], 32)}, "k_cache must have shape ['*', '*', '*', 64]"),
        ({"sinks": empty(HEADS + 1)}, f"sinks must have shape [{HEADS}]"),
        ({"window": 0}, "window must be None or at least 1; got 0"),
        ({"kv_lens": empty(3, dtype=torch.int64)}, "kv_lens must be torch.int32"),
        ({"cu_seqlens_q": ints(3)}, "cu_seqlens_q must have shape [4]"),
        ({"positions": ints(4)}, "positions must have shape [3]"),
        ({"page_table": ints(2, 8)}, "page_table must have shape [3, '*']"),
        ({"window_page_table": ints(3, 7)}, "window_page_table must have shape [3, 8]"),
        ({"num_decodes": 4}, "num_decodes must be 0..3; got 4"),
        (
            {"positions": torch.empty(3, dtype=torch.int32)},
            "cu_seqlens_q is on meta, but positions is on cpu",
        ),
    ],
)  # fmt: skip
def test_broken_contracts(kernel, changes, message):
    with pytest.raises(ValueError) as error:
        kernel.rejects(*call(**changes))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({}, None),
        ({"window": 128}, None),
        ({"q": empty(3, HEADS, 64, dtype=torch.float32)}, "takes q in torch.bfloat16"),
        ({"sinks": empty(HEADS, dtype=torch.float32)}, "takes sinks in torch.bfloat16"),
        (
            {name: empty(*CACHE, dtype=torch.float32) for name in NAMES[1:3]},
            "takes a cache in torch.bfloat16 or torch.float8_e4m3fn, got torch.float32",
        ),
        (
            {name: empty(*CACHE[:2], 64, 64) for name in NAMES[1:3]},
            "takes pages of 128, got 64",
        ),
        (
            {"q": empty(3, HEADS, 32)} | {name: empty(*CACHE[:3], 32) for name in NAMES[1:3]},
            "takes heads of 64, got 32",
        ),
        (
            {name: empty(24, HEADS, 128, 64) for name in NAMES[1:3]},
            f"takes 8 query heads a kv head, got {HEADS} for {HEADS}",
        ),
    ],
)  # fmt: skip
def test_declined(changes, reason):
    for kernel in attention.kernels:
        found = kernel.rejects(*call(**changes))
        assert found is None if reason is None else found.startswith(reason)


def test_too_many_requests():
    arguments = BUILDERS["attention"](META, CONFIG, 512)
    assert attention.kernels[0].rejects(*arguments) is None
    meta = replace(
        arguments[4],
        positions=ints(513),
        cu_seqlens_q=ints(514),
        kv_lens=ints(513),
        page_table=ints(513, 8),
        window_page_table=ints(513, 8),
    )
    reason = attention.kernels[0].rejects(empty(513, HEADS, 64), *arguments[1:4], meta, None)
    assert reason == "takes at most 512 requests, got 513"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"qkv": empty(3, 100)}, "qkv must have heads of 64"),
        ({"qkv": empty(3, 2 * KV_HEADS * 64)}, "qkv must have heads of 64, more than"),
        ({"positions": empty(3, dtype=torch.int64)}, "positions must be torch.int32"),
        ({"slot_mapping": ints(2)}, "slot_mapping must have shape [3]"),
        ({"cos": empty(9, 16, dtype=torch.float32)}, "cos must have shape ['*', 32]"),
        ({"sin": empty(9, 32, dtype=torch.float32)}, "sin must have shape [1024, 32]"),
        ({"v_cache": empty(*CACHE[:2], 64, 64)}, "v_cache must have shape"),
    ],
)
def test_broken_contracts_of_rope_kv_write(changes, message):
    with pytest.raises(ValueError) as error:
        rope_kv_write.kernels[0].rejects(*rope_call(**changes))
    assert str(error.value).startswith(message)


def test_declined_by_rope_kv_write():
    (kernel,) = rope_kv_write.kernels
    assert kernel.rejects(*rope_call()) is None
    wide = empty(3, (HEADS + 2 * KV_HEADS) * 64, dtype=torch.float32)
    assert kernel.rejects(*rope_call(qkv=wide)) == "takes qkv in torch.bfloat16, got torch.float32"
    caches = {name: empty(*CACHE[:2], 64, 64) for name in NAMES[1:3]}
    assert kernel.rejects(*rope_call(**caches)) == "takes pages of 128, got 64"


def test_symbols_say_what_is_launched():
    cuda, prefill = attention.kernels
    decode = ("attention_decode_mma", "attention_merge")
    assert cuda.symbols(*call()) == decode and cuda.symbols(*call(window=128)) == decode[:1]
    assert prefill.symbols(*call()) == ("attention_prefill_wgmma",)
    mixed = call(num_decodes=2)
    assert cuda.symbols(*mixed) == (*decode, "attention_prefill_wgmma")
    short = call(page_table=ints(3, 2), window_page_table=ints(3, 2))
    assert cuda.symbols(*short) == decode[:1]
    assert cuda.symbols(*call(num_decodes=0)) == ("attention_prefill_wgmma",)


def test_a_cache_in_e4m3_has_kernels_of_its_own():
    caches = {name: empty(*CACHE, dtype=torch.float8_e4m3fn) for name in NAMES[1:3]}
    cuda, prefill = attention.kernels
    names = ("attention_decode_mma_fp8", "attention_merge", "attention_prefill_wgmma_fp8")
    assert cuda.rejects(*call(**caches)) is None and prefill.rejects(*call(**caches)) is None
    assert cuda.symbols(*call(num_decodes=2, **caches)) == names
    assert prefill.symbols(*call(**caches)) == names[2:]
    (write,) = rope_kv_write.kernels
    assert write.rejects(*rope_call(**caches)) is None
    assert write.symbols(*rope_call(**caches)) == ("rope_kv_write_fp8",)
